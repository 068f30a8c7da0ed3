"""Property values: what a program, the engine and a provider say to each other, and how each of them writes it.

Inside the engine a value is plain Python: None, bool, int, float, str, list, dict, and two classes of its own,
`Secret` and `Unknown`. Assets, archives and resource references stay the tagged dicts they arrive as: the engine only
carries them.

Written forms: the protobuf Struct of the gRPC protocols (`wire.py`), the checkpoint (secrets encrypted), and the engine
events (secrets blinded). The signature constants are Pulumi's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a signature of the protocol
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"

UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN_TEXTS = frozenset(
    {
        UNKNOWN_TEXT,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # a boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # a number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # a list
        "030794c1-ac77-496b-92df-f27374a8bd58",  # an asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # an archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # a map
    }
)

Properties = dict[str, Any]


class Unknown:
    """A value that is only known after the update."""

    def __repr__(self) -> str:
        return "<unknown>"


UNKNOWN = Unknown()


class Secret:
    """A value that is written encrypted. It remembers its ciphertext, so that an unchanged secret is written
    unchanged.
    """

    __slots__ = ("ciphertext", "value")

    def __init__(self, value: Any, ciphertext: str | None = None) -> None:
        self.value, self.ciphertext = plain(value), ciphertext  # a secret in a secret is one secret

    def __repr__(self) -> str:
        return "<secret>"


def walk(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The value with `leaf` applied to all that is neither a list nor a dict (Secret and Unknown are leaves)."""
    if isinstance(value, dict):
        return {k: walk(v, leaf) for k, v in value.items()}
    if isinstance(value, list):
        return [walk(v, leaf) for v in value]
    return leaf(value)


def plain(value: Any) -> Any:
    """The value without its secret wrappings."""
    return walk(value, lambda v: plain(v.value) if isinstance(v, Secret) else v)


def _any(value: Any, wanted: Callable[[Any], bool]) -> bool:
    if wanted(value):
        return True
    if isinstance(value, Secret):
        return _any(value.value, wanted)
    if isinstance(value, dict):
        return any(_any(v, wanted) for v in value.values())
    return isinstance(value, list) and any(_any(v, wanted) for v in value)


def has_unknown(value: Any) -> bool:
    return _any(value, lambda v: isinstance(v, Unknown))


def has_secret(value: Any) -> bool:
    return _any(value, lambda v: isinstance(v, Secret))


def equal(a: Any, b: Any) -> bool:
    """Deep equality, apart from secretness; an unknown equals nothing but an unknown, and True is not 1."""
    a = a.value if isinstance(a, Secret) else a
    b = b.value if isinstance(b, Secret) else b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return isinstance(a, Unknown) and isinstance(b, Unknown)
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def identical(a: Any, b: Any) -> bool:
    """Deep equality with secretness: what is written for the one may be written for the other."""
    if isinstance(a, Secret) or isinstance(b, Secret):
        return isinstance(a, Secret) and isinstance(b, Secret) and identical(a.value, b.value)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(identical(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(identical, a, b))
    return equal(a, b)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The top-level keys whose values differ."""
    missing = object()
    return sorted(k for k in {*old, *new} if not equal(old.get(k, missing), new.get(k, missing)))


def keep_secret(value: Any, template: Any) -> Any:
    """`value` with everything marked secret that is secret in `template` at the same place.

    A provider may drop the marks of what it was sent; what went in as a secret must not come out in the clear.
    """
    if isinstance(template, Secret):
        return value if isinstance(value, Secret) else Secret(value)
    if isinstance(value, Secret):
        return value
    if isinstance(template, dict):
        if isinstance(value, dict):
            return {k: keep_secret(v, template[k]) if k in template else v for k, v in value.items()}
        return Secret(value) if has_secret(template) else value
    if isinstance(template, list):
        if isinstance(value, list) and len(value) == len(template):
            return [keep_secret(v, t) for v, t in zip(value, template, strict=True)]
        return Secret(value) if has_secret(template) else value
    return value


def to_checkpoint(value: Any, encrypt: Callable[[str], str]) -> Any:
    """The form of the checkpoint: secrets as ciphertext, numbers without a needless `.0`."""

    def leaf(v: Any) -> Any:
        if isinstance(v, Secret):
            if v.ciphertext is None:
                text = json.dumps(to_checkpoint(plain(v.value), encrypt), separators=(",", ":"), ensure_ascii=False)
                v.ciphertext = encrypt(text)
            return {SIGNATURE: SECRET, "ciphertext": v.ciphertext}
        return UNKNOWN_TEXT if isinstance(v, Unknown) else v

    return walk(value, leaf)


def from_checkpoint(value: Any, decrypt: Callable[[str], str]) -> Any:
    """Reads the checkpoint's form; a secret may also be given as plaintext (an edited export)."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            if "plaintext" in value:
                return Secret(json.loads(value["plaintext"]))
            ciphertext = value["ciphertext"]
            return Secret(json.loads(decrypt(ciphertext)), ciphertext)
        return {k: from_checkpoint(v, decrypt) for k, v in value.items()}
    if isinstance(value, list):
        return [from_checkpoint(v, decrypt) for v in value]
    return UNKNOWN if isinstance(value, str) and value in UNKNOWN_TEXTS else value


def to_export(value: Any) -> Any:
    """The form of `stack export --show-secrets`."""

    def leaf(v: Any) -> Any:
        if isinstance(v, Secret):
            return {SIGNATURE: SECRET, "plaintext": json.dumps(to_export(plain(v.value)), separators=(",", ":"))}
        return UNKNOWN_TEXT if isinstance(v, Unknown) else v

    return walk(value, leaf)


def to_event(value: Any) -> Any:
    """The form of the engine events: secrets are blinded."""

    def leaf(v: Any) -> Any:
        if isinstance(v, Secret):
            return {SIGNATURE: SECRET, "ciphertext": "[secret]"}
        return UNKNOWN_TEXT if isinstance(v, Unknown) else v

    return walk(value, leaf)


def leak_guard(inputs: Properties, outputs: Properties, also_secret: list[str]) -> Properties:
    """Outputs in which what went in as a secret, and what the program calls secret, is secret."""
    out = dict(keep_secret(outputs, {k: v for k, v in inputs.items() if k in outputs}))
    for key in also_secret:
        if key in out and not isinstance(out[key], Secret):
            out[key] = Secret(out[key])
    return out
