"""Whatever bytes come, only our own errors come out: hypothesis breaks well-formed samples, a little for each target.

`FUZZ_EXAMPLES` says how many examples each target gets (default 60); `guided.py` goes on where coverage leads.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from typing import Any

import pytest
import yaml
from fuzz_world import world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import KIT, PARTICIPANT, SPEC, envelope, order, revocation, samples
from targets import NOT_TAKEN, PARTS, TARGETS, no_thread_dies

from fl_runtime.signed import canonical

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
lean = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@st.composite
def broken(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """A sample with some bytes changed, cut out, put in or repeated."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("set", "cut", "put", "repeat")))
        if kind == "set" and at < len(data):
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "put":
            data[at:at] = draw(st.binary(max_size=20) | st.sampled_from(TOKENS))
        else:
            data[at:at] = data[max(0, at - draw(st.integers(1, 40))) : at] * draw(st.integers(1, 3))
    return bytes(data)


TOKENS = [
    *(b"NaN", b"1e999", b"-1", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"\xff\xfe", b"null", b'""', b"\\ud800"),
    *(b"\x00", b"&a [*a]", b"../", b"\xb2", b"0x", b"18446744073709551616", b"!!set {a}", b"2024-01-01", b"PK\x01\x02"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_broken_samples_end_in_our_own_errors(name: str) -> None:
    world().new_hub()
    whole = samples()[name]
    part = PARTS.get(name, lambda data: "")

    @lean
    @given(data=broken(whole) | st.binary(max_size=300))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    with no_thread_dies():
        # what refuses everything is not looked into; a busy machine may be late once
        taken = {part(sample) for _ in range(5) for sample in whole if TARGETS[name](sample)}
        assert taken == {part(sample) for sample in whole if (name, part(sample)) not in NOT_TAKEN}
        check()


@lean
@given(bodies=st.lists(broken([b'{"op": "status"}', b'{"op":"attach","job":"job-1","epoch":1}', b"{}"]), max_size=3))
def test_frames_of_the_right_length_with_any_content_end_in_our_own_errors(bodies: list[bytes]) -> None:
    data = b"".join(struct.pack("<II", len(body), 0) + body for body in bodies)
    with no_thread_dies():
        TARGETS["frames"](data)
        TARGETS["local_requests"](data)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["lead", "any", "8GB", "1e400", "²", "NaN", "../x", "a.b", "server", "http://[", "9" * 400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def changed(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a document's values, at its top or one level below, replaced by anything."""
    paths = [(key,) for key in document]
    paths += [(key, inner) for key, value in document.items() if isinstance(value, dict) for inner in value]

    def apply(changes: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
        made = json.loads(json.dumps(document))
        for path, value in changes:
            where = made
            for key in path[:-1]:
                where = where[key] if isinstance(where.get(key), dict) else {}
            where[path[-1]] = value
        return made

    return st.lists(st.tuples(st.sampled_from(paths), plain), min_size=1, max_size=3).map(apply)


@lean
@given(document=changed(SPEC))
def test_a_job_with_any_values_is_read_or_refused(document: dict[str, Any]) -> None:
    TARGETS["job_files"](json.dumps(document).encode())
    TARGETS["job_folders"](yaml.safe_dump(document).encode())


@lean
@given(document=changed(KIT) | changed(PARTICIPANT))
def test_a_kit_with_any_values_is_read_or_refused(document: dict[str, Any]) -> None:
    TARGETS["kits"](yaml.safe_dump(document).encode())


@pytest.mark.parametrize(
    ("name", "document"), [("envelopes", envelope()), ("orders", order()), ("revocations", revocation())]
)
def test_a_signed_document_with_any_values_is_opened_or_refused(name: str, document: dict[str, Any]) -> None:
    @lean
    @given(changed=changed(document))
    def check(changed: dict[str, Any]) -> None:
        with contextlib.suppress(ValueError):  # what has no canonical form, such as NaN
            TARGETS[name](canonical(changed))
        TARGETS[name](json.dumps(changed).encode())
        TARGETS[name](json.dumps(changed, sort_keys=True, separators=(",", ":")).encode())

    check()


@lean
@given(
    header=st.dictionaries(
        st.text(max_size=4),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "BOOL", "U64", "X", ""]),
                "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 40) | st.integers(), min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ),
    data=st.binary(max_size=40),
    twice=st.booleans(),
)
def test_tensors_that_overlap_lie_outside_or_have_impossible_shapes_are_refused(
    header: dict[str, Any], data: bytes, twice: bool
) -> None:
    body = json.dumps(header).encode()
    if twice:  # the same key again
        body = body[:-1] + b"," + body[1:] if header else body
    TARGETS["models"](len(body).to_bytes(8, "little") + body + data)
