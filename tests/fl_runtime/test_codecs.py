"""Codecs: what comes back, how far off it may be, how short it is, and what a peer that lies gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_runtime.codecs.container import KEY
from fl_runtime.codecs.decode import decode
from fl_runtime.codecs.encode import encode, unzigzag, zigzag
from fl_runtime.codecs.narrow import FORMS, GROUP4, GROUP8
from fl_runtime.codecs.spec import chosen, parse_codecs
from fl_runtime.errors import JobSpecError, ProtocolError
from fl_runtime.models.blocks import BLOCK
from fl_runtime.models.tensors import TensorFile, dump, layout
from fl_runtime.models.tensors import encode as tensors_of

LIMIT = 1 << 30
RNG = np.random.default_rng(11)


def plain(metadata=None, **arrays: np.ndarray) -> bytes:
    return dump(*tensors_of(arrays, metadata))


def sample(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {
        "w": (RNG.normal(size=(300, 70)) * scale).astype(np.float32),
        "wide": RNG.normal(size=999) * scale,
        "half": (RNG.normal(size=(20, 20)) * scale).astype(np.float16),
        "bias": RNG.normal(size=5).astype(np.float32),
        "steps": np.arange(100),
        "flags": RNG.random(77) > 0.5,
        "empty": np.zeros((0, 4), np.float32),
    }


def there_and_back(source: bytes, kinds, tmp: Path, **given_: object) -> tuple[dict, bytes, bytes]:
    codecs = chosen(parse_codecs(kinds, "test"), "results", {"codecs-1", "zstd-1"})
    about = encode(source, codecs, tmp / "wire", **given_)
    if not about["form"]:
        return about, source, source
    decode(tmp / "wire", tmp / "back", LIMIT, given_.get("base"), given_.get("base_id", ""))
    return about, (tmp / "wire").read_bytes(), (tmp / "back").read_bytes()


def arrays(data: bytes) -> dict[str, np.ndarray]:
    file = TensorFile(data)
    return {name: file.array(name) for name in file.tensors}


def test_zstd_and_delta_give_back_the_same_bytes(tmp_path: Path) -> None:
    before = sample()
    after = {name: value + value.dtype.type(0) for name, value in before.items()}
    after["w"] = before["w"] * np.float32(1.0001)
    base, source = plain(**before), plain({"note": "ü"}, **after)
    for kinds in (["zstd"], ["delta"], ["delta", "zstd"]):
        about, wire, back = there_and_back(source, kinds, tmp_path, base=base, base_id="ab")
        assert back == source, kinds
        assert about["lossless"] == "1"
    assert about == {"form": "delta,zstd", "base": "ab", "lossless": "1"}
    assert len(wire) < 0.6 * len(source)


def test_a_header_of_another_writer_survives(tmp_path: Path) -> None:
    """The library orders tensors and pads the header otherwise; the id of what is decoded must be the same."""
    from safetensors.numpy import save

    source = save({"b": np.zeros(4000, np.float16), "a": np.zeros((50, 50))}, {"by": "the library"})
    about, _, back = there_and_back(source, ["zstd"], tmp_path)
    assert back == source
    assert about["form"] == "zstd"


@pytest.mark.parametrize(("kind", "bits"), [("quantize8", 8), ("quantize4", 4)])
def test_quantized_values_are_off_by_half_a_step_at_most(kind: str, bits: int, tmp_path: Path) -> None:
    group = GROUP8 if bits == 8 else GROUP4
    source = sample()
    about, wire, back = there_and_back(plain(**source), [kind], tmp_path)
    got = arrays(back)
    assert about["form"] == kind
    for name in ("w", "wide"):
        flat = source[name].astype(np.float64).ravel()
        off = np.abs(got[name].astype(np.float64).ravel() - flat)
        for first in range(0, len(flat), group):
            part = flat[first : first + group]
            step = (part.max() - part.min()) / (2**bits - 1)
            assert off[first : first + group].max() <= step / 2 * (1 + 1e-3) + 1e-7
    for name in ("bias", "steps", "flags", "empty"):
        assert np.array_equal(got[name], source[name])
        assert got[name].dtype == source[name].dtype
    assert len(wire) < len(plain(**source)) * (0.4 if bits == 8 else 0.3)


@pytest.mark.parametrize(("dtype", "off"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_a_cast_rounds_and_keeps_what_it_can_not_hold(dtype: str, off: float, tmp_path: Path) -> None:
    source = sample()
    source["large"] = np.linspace(-1e6, 1e6, 300).astype(np.float32)  # infinity in a half: goes as bfloat16
    _, _, back = there_and_back(plain(**source), [{"type": "cast", "dtype": dtype}], tmp_path)
    got = arrays(back)
    assert np.allclose(got["w"], source["w"], rtol=off, atol=1e-7)
    assert np.allclose(got["large"], source["large"], rtol=2**-8)
    assert np.array_equal(got["half"], source["half"])  # as short already


def test_top_k_of_a_delta_keeps_the_largest_changes(tmp_path: Path) -> None:
    before = {"w": RNG.normal(size=BLOCK + 70_000).astype(np.float32), "bias": np.zeros(3, np.float32)}
    change = RNG.normal(size=before["w"].shape).astype(np.float32)
    after = {"w": before["w"] + change, "bias": np.ones(3, np.float32)}
    kinds = ["delta", {"type": "topk", "share": 0.01}]
    about, wire, back = there_and_back(plain(**after), kinds, tmp_path, base=plain(**before), base_id="ab")
    got = arrays(back)
    change = after["w"].astype(np.float64) - before["w"]
    kept = np.argsort(-np.abs(change))[: round(0.01 * len(change))]
    wanted = before["w"].astype(np.float64)
    wanted[kept] += change[kept]
    assert np.allclose(got["w"], wanted, atol=1e-6)
    assert np.array_equal(got["bias"], after["bias"])
    assert about["form"] == "delta,topk"
    assert len(wire) < 0.02 * len(plain(**after))


def test_everything_together(tmp_path: Path) -> None:
    before = sample()
    after = {**before, "w": before["w"] + (0.01 * RNG.normal(size=before["w"].shape)).astype(np.float32)}
    kinds = ["zstd", "quantize4", {"type": "topk", "share": 0.2}, "delta"]
    about, _, back = there_and_back(plain(**after), kinds, tmp_path, base=plain(**before), base_id="00")
    assert about["form"] == "delta,topk,quantize4,zstd"
    off = np.abs(arrays(back)["w"] - after["w"]).max()
    assert off < 0.02
    assert np.array_equal(arrays(back)["steps"], after["steps"])


def test_top_k_of_equal_values_keeps_exactly_its_share(tmp_path: Path) -> None:
    source = plain(w=np.full(1000, 0.5, np.float32))
    _, _, back = there_and_back(source, [{"type": "topk", "share": 0.1, "on": "results"}], tmp_path, is_diff=True)
    assert np.count_nonzero(arrays(back)["w"]) == 100


@pytest.mark.parametrize("is_diff", [False, True])
def test_top_k_leaves_nothing_out_of_what_is_no_difference(tmp_path: Path, is_diff: bool) -> None:
    """An optimizer's state, an executor's own arrays, a tensor that the other side has not."""
    extra = np.arange(1.0, 1001.0, dtype=np.float32)
    after = {"w": extra * 2, "__optimizer__.m": extra}
    if is_diff:
        base, kinds = None, [{"type": "topk", "share": 0.1, "on": "results"}]
    else:
        base, kinds = plain(w=extra), ["delta", {"type": "topk", "share": 0.1}]
        after["new"] = extra
    about, _, back = there_and_back(plain(**after), kinds, tmp_path, base=base, is_diff=is_diff)
    assert "topk" in about["form"]
    found = arrays(back)
    for name in set(after) - {"w"}:
        assert np.array_equal(found[name], extra), name
    assert np.count_nonzero(found["w"] - (0 if is_diff else extra)) == 100


def test_without_a_base_everything_is_sent(tmp_path: Path) -> None:
    source = plain(**sample())
    about, wire, _ = there_and_back(source, ["delta", "topk"], tmp_path)
    assert about["form"] == ""
    assert wire == source


def test_what_would_not_be_shorter_goes_plain(tmp_path: Path) -> None:
    source = plain(w=np.frombuffer(os.urandom(40_000), np.uint8))
    about, _, _ = there_and_back(source, ["zstd"], tmp_path)
    assert about["form"] == ""


def test_nan_and_infinity_arrive_as_they_are(tmp_path: Path) -> None:
    """They are for the server's check to refuse, by the site's name."""
    source = {"w": RNG.normal(size=500).astype(np.float32), "v": RNG.normal(size=5000).astype(np.float32)}
    source["w"][3], source["w"][4] = np.nan, np.inf
    _, _, back = there_and_back(plain(**source), ["quantize8"], tmp_path)
    assert np.array_equal(arrays(back)["w"], source["w"], equal_nan=True)


def test_tensors_that_are_new_since_the_base(tmp_path: Path) -> None:
    before, after = {"w": np.zeros((64, 64), np.float32)}, {"w": np.ones((64, 64), np.float32), "v": np.full(90, 7.0)}
    for kinds in (["delta", "zstd"], ["delta", "quantize8"]):
        _, _, back = there_and_back(plain(**after), kinds, tmp_path, base=plain(**before), base_id="ab")
        assert np.allclose(arrays(back)["v"], 7)
        assert np.allclose(arrays(back)["w"], 1)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=8, max_size=400), st.binary(min_size=8, max_size=400), st.sampled_from([1, 2, 4, 8]))
def test_differences_of_bit_patterns_are_exact(one: bytes, two: bytes, size: int) -> None:
    count = min(len(one), len(two)) // size
    first = np.frombuffer(one, f"<u{size}", count)
    second = np.frombuffer(two, f"<u{size}", count)
    assert np.array_equal(unzigzag(zigzag(first, second), second), first)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FORMS)), st.integers(1, 5000), st.data())
def test_any_stretch_of_a_row_reads_as_the_whole(name: str, count: int, data: st.DataObject) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)
    parts = FORMS[name].put(values)
    stored = {suffix: part.view("<u2") if name == "bf16" else part for suffix, part in parts.items()}
    first = data.draw(st.integers(0, count - 1))
    length = data.draw(st.integers(1, count - first))
    whole = FORMS[name].get(stored, 0, count)
    assert np.array_equal(FORMS[name].get(stored, first, length), whole[first : first + length])


# --- what comes from a peer that lies


def wire_of(kinds, tmp: Path, source: bytes, **given_: object) -> bytes:
    encode(source, chosen(parse_codecs(kinds, "t"), "results", {"codecs-1", "zstd-1"}), tmp / "w", **given_)
    return (tmp / "w").read_bytes()


def test_a_few_bytes_do_not_unfold_beyond_the_limit(tmp_path: Path) -> None:
    wire = wire_of(["zstd"], tmp_path, plain(w=np.zeros(1 << 20)))
    assert len(wire) < 4000
    with pytest.raises(ProtocolError, match=r"damaged.*bytes in"):
        decode(wire, tmp_path / "o", 1 << 20)
    wire = wire_of(["quantize4"], tmp_path, plain(w=np.zeros(1 << 17, np.float32)))
    with pytest.raises(ProtocolError, match="too large"):
        decode(wire, tmp_path / "o", 1 << 18)


def test_another_base_is_refused(tmp_path: Path) -> None:
    base = plain(w=np.zeros(3000))
    wire = wire_of(["delta", "zstd"], tmp_path, plain(w=np.ones(3000)), base=base, base_id="aa")
    for given_ in ({}, {"base": base, "base_id": "bb"}):
        with pytest.raises(ProtocolError, match="base is not here"):
            decode(wire, tmp_path / "o", LIMIT, **given_)
    with pytest.raises(ProtocolError, match="not in its base"):
        decode(wire, tmp_path / "o", LIMIT, plain(w=np.zeros(2999)), "aa")


def test_a_payload_that_is_no_wire_form_is_refused(tmp_path: Path) -> None:
    for bad in (plain(w=np.zeros(3)), b"fspzstd1", b"fspzstd1" + bytes(16), b"\xff" * 40, b"12345678"):
        with pytest.raises(ProtocolError):
            decode(bad, tmp_path / "o", LIMIT)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_payloads_end_in_an_error_of_ours_or_in_a_model(tmp_path: Path, data: st.DataObject) -> None:
    tmp = tmp_path
    before, after = {"w": np.zeros(2000, np.float32)}, {"w": RNG.normal(size=2000).astype(np.float32)}
    kinds = data.draw(
        st.sampled_from([["quantize8"], ["quantize4", "zstd"], ["cast"], ["delta", "topk"], ["delta", "zstd"]])
    )
    wire = bytearray(wire_of(kinds, tmp, plain(**after), base=plain(**before), base_id="aa"))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, min(len(wire) - 1, 900)))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(wire), tmp / "o", 1 << 20, plain(**before), "aa")
    except ProtocolError:
        return
    TensorFile(tmp / "o")


def test_forms_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    head = '{"w":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}'
    parts = {"0": np.zeros(100, np.uint8), "0.low": np.zeros(1, np.float32), "0.step": np.zeros(1, np.float32)}

    def made(forms: list[str], header: str = head, **more: object) -> bytes:
        body = {"v": 1, "header": header, "forms": forms, "delta": "", "base": "", **more}
        plan = layout(
            {
                name: tensors_of({name: part})[0].tensors[name]
                and ("U8" if part.dtype == np.uint8 else "F32", part.shape)
                for name, part in parts.items()
            },
            {KEY: json.dumps(body)},
        )
        return dump(plan, {name: part.view(np.uint8) for name, part in parts.items()})

    decode(made(["q8"]), tmp_path / "o", LIMIT)
    for wrong in (["q4"], ["raw"], [], ["q8", "q8"], ["exec"], ["top:q8"], ["bits"]):
        with pytest.raises(ProtocolError):
            decode(made(wrong), tmp_path / "o", LIMIT)
    for header in ('{"w":1}', "[]", '{"w":{"dtype":"F32","shape":[100],"data_offsets":[0,400000000000]}}'):
        with pytest.raises(ProtocolError):
            decode(made(["q8"], header), tmp_path / "o", LIMIT)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([{"type": "quantise8"}], "did you mean 'quantize8'"),
        (["cast", "quantize8"], "one of cast, quantize8, quantize4"),
        (["topk"], "topk for tasks needs delta"),
        ([{"type": "cast", "dtype": "fp8"}], "fp16 or bf16"),
        ([{"type": "topk", "share": 2, "on": "results"}], "between 0 and 1"),
        ([{"type": "zstd", "on": "both sides"}], "must be one of"),
    ],
)
def test_a_wrong_list_says_what_is_wrong(document: list, words: str) -> None:
    with pytest.raises(JobSpecError) as error:
        parse_codecs(document, "job.yml")
    assert words in str(error.value)


def test_an_older_peer_gets_full_sends() -> None:
    codecs = parse_codecs(["delta", {"type": "cast", "on": "tasks"}, "zstd"], "job.yml")
    assert chosen(codecs, "results", frozenset({"blobs-1"})) == []
    assert [entry["type"] for entry in chosen(codecs, "tasks", {"codecs-1"})] == ["delta", "cast"]
    assert [entry["type"] for entry in chosen(codecs, "results", {"codecs-1", "zstd-1"})] == ["delta", "zstd"]
