"""Between ARM's shape of a resource and Pulumi's: `properties` are shown beside the rest, at every level.

The SDK's models say where that is so. Property names are the same in both shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from deployer.sandbox.azure.schema import Field, Kind, model
from deployer.sandbox.provider_values import UNKNOWN, is_secret


@functools.cache
def fields(space: str, name: str) -> Mapping[str, tuple[Field, bool]]:
    """The flat properties of a model, and for each whether it lies within `properties`."""
    shape = model(space, name)
    outer = {key: (field, False) for key, field in shape.fields.items()}
    if not shape.flattened or "properties" not in shape.fields:
        return outer
    inner_name = shape.fields["properties"].kind.model
    outer.pop("properties")
    for key, field in model(space, inner_name or "").fields.items():
        # Both may have a name of their own ("type" of an extension): the one that can be set is meant.
        if key not in outer or outer[key][0].read_only:
            outer[key] = (field, True)
    return outer


def to_rest(space: str, kind: Kind, value: Any) -> Any:
    """Pulumi's shape as ARM's. What the model does not know stays where it is: ARM will say so."""
    if kind.word == "list" and kind.item and isinstance(value, list):
        return [to_rest(space, kind.item, item) for item in value]
    if kind.word == "map" and kind.item and isinstance(value, dict):
        return {key: to_rest(space, kind.item, item) for key, item in value.items()}
    if kind.word != "object" or not kind.model or not isinstance(value, dict):
        return value
    known, out = fields(space, kind.model), dict[str, Any]()
    for key, item in value.items():
        if item is None:
            continue
        if key not in known:
            out[key] = item
            continue
        field, inner = known[key]
        converted = to_rest(space, field.kind, item)
        if inner:
            out.setdefault("properties", {})[key] = converted
        else:
            out[key] = converted
    return out


def from_rest(space: str, kind: Kind, value: Any, *, inputs_only: bool = False) -> Any:
    """ARM's shape as Pulumi's; with `inputs_only` without what only the service sets."""
    if kind.word == "list" and kind.item and isinstance(value, list):
        return [from_rest(space, kind.item, item, inputs_only=inputs_only) for item in value]
    if kind.word == "map" and kind.item and isinstance(value, dict):
        return {key: from_rest(space, kind.item, item, inputs_only=inputs_only) for key, item in value.items()}
    if kind.word != "object" or not kind.model or not isinstance(value, dict):
        return value
    known = fields(space, kind.model)
    flattened = any(inner for _, inner in known.values())
    nested = value.get("properties") if flattened else None
    out: dict[str, Any] = {}
    for key, (field, inner) in known.items():
        source = nested if inner else value
        if not isinstance(source, dict) or source.get(key) is None or (inputs_only and field.read_only):
            continue
        out[key] = from_rest(space, field.kind, source[key], inputs_only=inputs_only)
    return out


def project(space: str, kind: Kind, flat: Any) -> Any:
    """The inputs that are in flat outputs: what is not read-only, at every level."""
    if kind.word == "list" and kind.item and isinstance(flat, list):
        return [project(space, kind.item, item) for item in flat]
    if kind.word != "object" or not kind.model or not isinstance(flat, dict):
        return flat
    known = fields(space, kind.model)
    return {
        key: project(space, known[key][0].kind, item)
        for key, item in flat.items()
        if key in known and not known[key][0].read_only and item is not None
    }


def previewed(space: str, kind: Kind, flat: Any) -> Any:
    """What a preview knows of outputs: the inputs, and in each object that is one, that the rest is not known yet."""
    if kind.word == "list" and kind.item and isinstance(flat, list):
        return [previewed(space, kind.item, item) for item in flat]
    if kind.word != "object" or not kind.model or not isinstance(flat, dict) or is_secret(flat):
        return flat
    known = fields(space, kind.model)
    given = {key: previewed(space, known[key][0].kind, item) if key in known else item for key, item in flat.items()}
    return {**dict.fromkeys(known, UNKNOWN), **given}
