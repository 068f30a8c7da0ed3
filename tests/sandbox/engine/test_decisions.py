"""The engine's pure parts: property values, paths, the graph, durations, command lines, the format of secrets."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from deployer.sandbox.engine import paths, urns, wire
from deployer.sandbox.engine.flags import parse
from deployer.sandbox.engine.graph import Graph, delete_layers
from deployer.sandbox.engine.passphrase import Secrets
from deployer.sandbox.engine.problems import CommandFailed
from deployer.sandbox.engine.request import seconds
from deployer.sandbox.engine.state import Resource
from deployer.sandbox.engine.targets import Urns
from deployer.sandbox.engine.values import (
    UNKNOWN,
    Secret,
    changed_keys,
    equal,
    from_checkpoint,
    has_secret,
    identical,
    keep_secret,
    plain,
    to_checkpoint,
    to_event,
)

_scalars = st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=8)
_trees = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.builds(Secret, inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), _trees, max_size=4))
def test_properties_survive_the_wire_and_the_checkpoint(values: dict[str, object]) -> None:
    over_the_wire = wire.decode(wire.encode(values, secrets=True))
    assert equal(over_the_wire, values)
    assert has_secret(over_the_wire) == has_secret(values)
    assert not has_secret(wire.decode(wire.encode(values, secrets=False)))
    kept: dict[str, str] = {}

    def encrypt(text: str) -> str:
        kept[f"c{len(kept)}"] = text
        return f"c{len(kept) - 1}"

    written = to_checkpoint(values, encrypt)
    assert identical(from_checkpoint(written, kept.__getitem__), values)


@given(_trees)
def test_an_event_shows_no_secret(value: object) -> None:
    marked = Secret("top-s3cret")
    assert "top-s3cret" not in repr(to_event({"a": [value, marked]}))


@given(_trees)
def test_what_was_secret_stays_secret(value: object) -> None:
    back = keep_secret(plain(value), value)
    assert equal(back, value)
    assert has_secret(back) == has_secret(value)


def test_true_is_not_one_and_an_unknown_is_no_value() -> None:
    assert not equal(True, 1)
    assert not equal(UNKNOWN, "x")
    assert changed_keys({"a": 1, "b": Secret("x")}, {"a": 1.0, "b": "x", "c": None}) == ["c"]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("size", {"size": 1, "tags": {"a": "new", "b": "new"}, "rules": [{"port": 9}, {"port": 8}]}),
        ("tags.a", {"size": 2, "tags": {"a": "old", "b": "new"}, "rules": [{"port": 9}, {"port": 8}]}),
        ("tags.b", {"size": 2, "tags": {"a": "new"}, "rules": [{"port": 9}, {"port": 8}]}),
        ('tags["a"]', {"size": 2, "tags": {"a": "old", "b": "new"}, "rules": [{"port": 9}, {"port": 8}]}),
        ("rules[0].port", {"size": 2, "tags": {"a": "new", "b": "new"}, "rules": [{"port": 1}, {"port": 8}]}),
        ("rules[*].port", {"size": 2, "tags": {"a": "new", "b": "new"}, "rules": [{"port": 1}, {"port": 8}]}),
        ("gone.deep", {"size": 2, "tags": {"a": "new", "b": "new"}, "rules": [{"port": 9}, {"port": 8}]}),
    ],
)
def test_an_ignored_property_keeps_what_it_was(path: str, wanted: dict[str, object]) -> None:
    old = {"size": 1, "tags": {"a": "old"}, "rules": [{"port": 1}]}
    new = {"size": 2, "tags": {"a": "new", "b": "new"}, "rules": [{"port": 9}, {"port": 8}]}
    assert paths.reset(new, old, path) == wanted


def _resource(name: str, *needs: str, parent: str = "") -> Resource:
    return Resource(f"urn:pulumi:s::p::t:t:T::{name}", "t:t:T", True, id=name, dependencies=[_urn(n) for n in needs],
                    parent=_urn(parent) if parent else "")  # fmt: skip


def _urn(name: str) -> str:
    return f"urn:pulumi:s::p::t:t:T::{name}"


def test_layers_delete_dependents_first_and_what_is_free_together() -> None:
    resources = [_resource("a"), _resource("b", "a"), _resource("c", "a"), _resource("d", "b", "c"), _resource("e")]
    layers = delete_layers(Graph(resources), resources)
    assert [sorted(r.id for r in layer) for layer in layers] == [["d"], ["b", "c"], ["a", "e"]]


def test_of_two_with_one_name_the_nearest_before_is_meant() -> None:
    old, new = _resource("a"), _resource("a")
    resources = [new, _resource("b", "a"), old]
    assert Graph(resources).dependents(old) == []
    assert [r.id for r in Graph(resources).dependents(new)] == ["b"]


def test_children_depend_on_their_parent_only_where_that_is_asked() -> None:
    resources = [_resource("a"), _resource("b", parent="a")]
    assert Graph(resources).dependents(resources[0]) == []
    assert Graph(resources).dependents(resources[0], children=True) == [resources[1]]


@pytest.mark.parametrize(("text", "wanted"), [("7m", 420), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25)])
def test_durations_are_gos(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["7", "m", "7 minutes", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        seconds(text)


def test_flags_may_stand_anywhere() -> None:
    line = parse(["--non-interactive", "stack", "output", "--json", "--stack=dev", "-y", "name", "--", "--not-a-flag"])
    assert line.words == ["stack", "output", "name", "--not-a-flag"]
    assert line.get("stack") == "dev"
    assert line.has("json")
    assert line.has("yes")
    with pytest.raises(CommandFailed, match="needs an argument"):
        parse(["up", "--stack"])


def test_wildcards_in_targets() -> None:
    targets = Urns(["urn:pulumi:s::p::t:t:T::a*", "urn:pulumi:s::p::**::z"])
    assert _urn("abc") in targets
    assert _urn("b") not in targets
    assert "urn:pulumi:s::p::x:y:Z$t:t:T::z" in targets


def test_a_childs_old_name_follows_its_parents() -> None:
    old = urns.inherited("web-1-disk", "web-1", "urn:pulumi:s::p::m:c:Old::web", "t:t:T")
    assert old == "urn:pulumi:s::p::m:c:Old$t:t:T::web-disk"


def test_secrets_have_pulumis_own_format() -> None:
    """Key and ciphertext are made here anew from what is known of the format: 1,000,000 rounds of PBKDF2, AES-GCM."""
    secrets = Secrets.new("correct horse")
    version, salt, *proof = secrets.salt.split(":")
    assert version == "v1"
    key = hashlib.pbkdf2_hmac("sha256", b"correct horse", base64.b64decode(salt), 1_000_000, 32)
    assert len(base64.b64decode(salt)) == 8

    def opened(nonce: str, sealed: str) -> str:
        return AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()

    assert opened(*proof[1:]) == "pulumi"
    sealed = secrets.encrypt('"hunter2"')
    assert opened(*sealed.split(":")[1:]) == '"hunter2"'
    assert Secrets(secrets.salt, "correct horse").decrypt(sealed) == '"hunter2"'
    with pytest.raises(CommandFailed, match="incorrect passphrase"):
        Secrets(secrets.salt, "wrong").unlock()
