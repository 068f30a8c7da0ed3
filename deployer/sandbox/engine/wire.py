"""Property values on the wire: the protobuf Struct of Pulumi's gRPC protocols, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from .values import (
    OUTPUT,
    RESOURCE,
    SECRET,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_TEXT,
    UNKNOWN_TEXTS,
    Properties,
    Secret,
    Unknown,
)


def decode(struct: struct_pb2.Struct, dependencies: dict[str, set[str]] | None = None) -> Properties:
    """The properties of a Struct. `dependencies`, when given, gathers for each top-level key the URNs that output
    values inside it name.
    """
    out = {}
    for key, value in struct.fields.items():
        found: set[str] = set()
        out[key] = decode_value(value, found)
        if dependencies is not None:
            dependencies.setdefault(key, set()).update(found)
    return out


def decode_value(value: struct_pb2.Value, found: set[str] | None = None) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text in UNKNOWN_TEXTS else text
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [decode_value(v, found) for v in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE in fields:
            signature = fields[SIGNATURE].string_value
            if signature == SECRET:
                return Secret(decode_value(fields["value"], found))
            if signature == OUTPUT:
                return _output(fields, found)
        return {k: decode_value(v, found) for k, v in fields.items()}
    return None


def _output(fields: Mapping[str, struct_pb2.Value], found: set[str] | None) -> Any:
    """An output value: its value (unknown when it has none), secret when it says so, and what it depends on."""
    value = decode_value(fields["value"], found) if "value" in fields else UNKNOWN
    if found is not None and "dependencies" in fields:
        found.update(v.string_value for v in fields["dependencies"].list_value.values)
    secret = "secret" in fields and fields["secret"].bool_value
    return Secret(value) if secret and not isinstance(value, Secret) else value


def encode(values: Mapping[str, Any], *, secrets: bool, resources: bool = True) -> struct_pb2.Struct:
    """The Struct of these properties; without `secrets` or `resources` the other side gets plain values and ids."""
    out = struct_pb2.Struct()
    for key, value in values.items():
        _encode(out.fields[key], value, secrets, resources)
    return out


def _encode(into: struct_pb2.Value, value: Any, secrets: bool, resources: bool) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, (int, float)):
        into.number_value = value
    elif isinstance(value, dict):
        if not resources and value.get(SIGNATURE) == RESOURCE:
            _encode(into, value.get("id") or value["urn"], secrets, resources)
            return
        into.struct_value.SetInParent()
        for k, v in value.items():
            _encode(into.struct_value.fields[k], v, secrets, resources)
    elif isinstance(value, list):
        into.list_value.SetInParent()
        for v in value:
            _encode(into.list_value.values.add(), v, secrets, resources)
    elif isinstance(value, Unknown):
        into.string_value = UNKNOWN_TEXT
    elif isinstance(value, Secret):
        if secrets:
            into.struct_value.fields[SIGNATURE].string_value = SECRET
            _encode(into.struct_value.fields["value"], value.value, secrets, resources)
        else:
            _encode(into, value.value, secrets, resources)
    else:
        into.null_value = struct_pb2.NULL_VALUE
