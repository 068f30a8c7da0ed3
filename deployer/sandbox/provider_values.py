"""Property values on the wire of the Pulumi provider protocol: plain Python values, secrets, unknowns, differences.

A resource's properties travel as a `google.protobuf.Struct`. Two things in it are more than JSON: a secret is an
object with a signature key (`SECRET_KEY`), and a value that is not known yet is the string `UNKNOWN`. Numbers travel as
doubles; here they become `int` where they are whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import struct_pb2

SECRET_KEY = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the protocol's marker, no secret
SECRET_VALUE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the same
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$]*\Z")


def _decode(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _decode(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if math.isfinite(number) and number == int(number) else number
    if kind in (None, "null_value"):
        return None
    return getattr(value, kind)


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """The properties of a request, secrets still wrapped."""
    return {key: _decode(item) for key, item in struct.fields.items()}


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Properties for an answer; `None` values are left out, as absent and null mean the same to the engine."""
    out = struct_pb2.Struct()
    out.update(_without_nulls(dict(values)))
    return out


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item) for item in value]
    return value


def secret(value: Any) -> dict[str, Any]:
    """A value marked as secret."""
    return {SECRET_KEY: SECRET_VALUE, "value": value}


def is_secret(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get(SECRET_KEY) == SECRET_VALUE


def plain(value: Any) -> Any:
    """The value without any secret wrapping, at any depth."""
    if is_secret(value):
        return plain(value.get("value"))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def has_secret(value: Any) -> bool:
    if is_secret(value):
        return True
    if isinstance(value, Mapping):
        return any(has_secret(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(has_secret(item) for item in value)


def has_unknown(value: Any) -> bool:
    """Does the value hold, at any depth, something that only the real operation will tell?"""
    if isinstance(value, Mapping):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_unknown(item) for item in value)
    return bool(value == UNKNOWN)


def mark_like(template: Any, value: Any) -> Any:
    """`value` with a secret wherever `template` has one: what went in as a secret comes out as one.

    Where the shapes differ below a place that holds a secret, the whole place becomes a secret.
    """
    if is_secret(template):
        return secret(plain(value))
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        return {key: mark_like(template.get(key), item) for key, item in value.items()}
    if isinstance(template, list) and isinstance(value, (list, tuple)):
        if len(template) == len(value):
            return [mark_like(old, item) for old, item in zip(template, value, strict=True)]
        return secret(plain(value)) if has_secret(template) else value
    return secret(plain(value)) if has_secret(template) and value is not None else value


@dataclass(frozen=True)
class Change:
    """One property that differs. `path` is Pulumi's way to write it: `a.b[0]["k:1"]`; an absent side is `None`."""

    path: str
    old: Any
    new: Any

    @property
    def top(self) -> str:
        """The name of the resource's property that the path begins with."""
        return re.split(r"[.\[]", self.path, maxsplit=1)[0]

    def under(self, prefix: str) -> bool:
        """Is this change at or below the path `prefix`?"""
        return self.path == prefix or self.path.startswith((prefix + ".", prefix + "["))


def join_path(base: str, key: str) -> str:
    if not _PLAIN_NAME.match(key):
        escaped = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{base}["{escaped}"]'
    return f"{base}.{key}" if base else key


def changes(old: Any, new: Any, base: str = "", sets: frozenset[str] = frozenset()) -> Iterator[Change]:
    """Every place where plain values differ, the deepest places only.

    Absent, null and empty lists or objects are the same; names that begin with two underscores are bookkeeping and
    skipped; lists at the paths in `sets` are compared without their order.
    """
    if _empty(old) and _empty(new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            if not key.startswith("__"):
                yield from changes(old.get(key), new.get(key), join_path(base, key), sets)
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        if base in sets:
            old, new = sorted(old, key=repr), sorted(new, key=repr)
        for index in range(max(len(old), len(new))):
            yield from changes(_at(old, index), _at(new, index), f"{base}[{index}]", sets)
    elif old != new:
        yield Change(base, old, new)


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, (Mapping, list, tuple)) and not value)


def get_path(values: Any, path: str) -> Any:
    """The value at a dotted path (`storageProfile.osDisk`) of plain values, or `None`."""
    for part in path.split("."):
        if not isinstance(values, Mapping):
            return None
        values = cast("Mapping[str, Any]", values).get(part)
    return values
