"""What a request's body may hold, read from the models of the installed Azure SDK.

The SDK's models name every property of every resource, with its type and whether it is the service's own. The
emulator checks bodies against them (ARM refuses a misspelled property; an emulator that swallowed it would let a bug
through), and the provider plugin uses the same models to turn Pulumi's flat properties into ARM's nested ones.
"""

from __future__ import annotations

import datetime
import enum
import functools
import importlib
import re
import threading
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODULES = {
    "network": "azure.mgmt.network.models",
    "compute": "azure.mgmt.compute.models",
    "authorization": "deployer.sandbox.azure.authorization_models",
    "devtestlab": "deployer.sandbox.azure.devtest_models",
    "resources": "azure.mgmt.resource.resources.models",
}


_GATHERING = threading.Lock()


@dataclass(frozen=True)
class Kind:
    """A property's type: a word, and for objects the model, for lists and maps the kind of an item."""

    word: str  # string, integer, number, boolean, datetime, object, list, map, any
    model: str | None = None
    item: Kind | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """One property of a model, by its name on the wire."""

    name: str
    kind: Kind
    read_only: bool  # set by the service; ignored in a request
    create_only: bool  # fixed once the resource exists
    required: bool


@dataclass(frozen=True)
class Model:
    """One SDK model. `flattened`: SDKs and Pulumi show the fields of `properties` beside the model's own."""

    space: str
    name: str
    fields: Mapping[str, Field]
    flattened: bool


def _kind(annotation: Any, namespace: Any, choices: tuple[str, ...] = ()) -> Kind:
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        if annotation.startswith("_models."):
            return _kind(getattr(namespace, annotation.removeprefix("_models.")), namespace)
        annotation = {"str": str, "int": int, "float": float, "bool": bool}.get(annotation, Any)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, getattr(types, "UnionType", typing.Union)):
        kinds = [_kind(part, namespace) for part in arguments if part is not type(None)]
        named = [kind for kind in kinds if kind.choices]
        return named[0] if named else kinds[0]
    if origin is list:
        return Kind("list", item=_kind(arguments[0], namespace))
    if origin is dict:
        return Kind("map", item=_kind(arguments[1], namespace))
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return Kind("string", choices=tuple(str(choice.value) for choice in annotation))
        if hasattr(annotation, "_is_model") or hasattr(annotation, "_attr_to_rest_field"):
            return Kind("object", model=annotation.__name__)
        for word, python in (("boolean", bool), ("integer", int), ("number", float), ("string", str)):
            if issubclass(annotation, python):
                return Kind(word)
        if issubclass(annotation, datetime.datetime):
            return Kind("datetime")
    return Kind("any")


@functools.cache
def model(space: str, name: str) -> Model:
    """The model `name` of the SDK `space` ("network", "compute", "resources"). Raises AttributeError if unknown."""
    namespace = importlib.import_module(MODULES[space])
    cls = getattr(namespace, name)
    with _GATHERING:  # by one thread at a time: the SDK changes the class whose attributes it goes through
        cls.__new__(cls)  # it gathers a class's fields when the first instance is made
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations.update(vars(base).get("__annotations__", {}))
    fields = {}
    for attribute, rest in cls._attr_to_rest_field.items():
        annotation = annotations.get(attribute, Any)
        visibility = rest._visibility
        fields[rest._rest_name] = Field(
            name=rest._rest_name,
            kind=_kind(annotation, namespace),
            read_only=visibility is not None and list(visibility) == ["read"],
            create_only=visibility is not None and "create" in visibility and "update" not in visibility,
            required=type(None) not in typing.get_args(annotation) and annotation is not Any,
        )
    flattened = any(key.endswith("__flattened_items") for key in vars(cls))
    return Model(space, name, fields, flattened)


@dataclass(frozen=True)
class Misfit:
    """The first thing in a body that its model does not allow. `problem`: unknown, type, or choice."""

    problem: str
    path: str
    model: str
    detail: str


_TYPES: dict[str, tuple[type[Any], ...]] = {
    "string": (str,),
    "datetime": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "map": (dict,),
    "list": (list,),
}
_NET_TYPES = {"boolean": "System.Boolean", "integer": "System.Int32", "number": "System.Double"}
_SIZE_PATH = re.compile(r"vmSize$")


def misfit(space: str, kind: Kind, value: Any, path: str = "") -> Misfit | None:
    """The first misfit of `value`, or `None`. Null is allowed everywhere, as in ARM; read-only properties too."""
    if value is None or kind.word == "any":
        return None
    allowed = _TYPES[kind.word]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        wanted = _NET_TYPES.get(kind.word, kind.word)
        return Misfit("type", path, kind.model or kind.word, f"Error converting value {value!r} to type '{wanted}'.")
    if kind.choices and not _SIZE_PATH.search(path) and value.lower() not in {c.lower() for c in kind.choices}:
        listed = ", ".join(f"'{choice}'" for choice in kind.choices)
        return Misfit("choice", path, kind.word, f"The value '{value}' is not one of {listed}.")
    if kind.word == "list" and kind.item:
        found = (misfit(space, kind.item, item, f"{path}[{i}]") for i, item in enumerate(value))
        return next((wrong for wrong in found if wrong), None)
    if kind.word == "map" and kind.item:
        found = (misfit(space, kind.item, item, f"{path}.{key}") for key, item in value.items())
        return next((wrong for wrong in found if wrong), None)
    if kind.word == "object" and kind.model:
        shape = model(space, kind.model)
        known = {name.lower(): field for name, field in shape.fields.items()}
        for key, item in value.items():
            field = known.get(key.lower())
            where = f"{path}.{key}" if path else key
            if field is None:
                return Misfit("unknown", where, shape.name, f"Could not find member '{key}' on object of type")
            if not field.read_only and (wrong := misfit(space, field.kind, item, where)):
                return wrong
    return None


def canonical(space: str, kind: Kind, value: Any, *, drop_read_only: bool = True) -> Any:
    """`value` with property names and enumerated words as Azure writes them, without nulls and read-only properties."""
    if value is None:
        return None
    if kind.word == "list" and kind.item:
        return [canonical(space, kind.item, item, drop_read_only=drop_read_only) for item in value]
    if kind.word == "map" and kind.item:
        return {k: canonical(space, kind.item, v, drop_read_only=drop_read_only) for k, v in value.items()}
    if kind.choices and isinstance(value, str):
        return next((choice for choice in kind.choices if choice.lower() == value.lower()), value)
    if kind.word != "object" or not kind.model:
        return value
    known = {name.lower(): field for name, field in model(space, kind.model).fields.items()}
    out = {}
    for key, item in value.items():
        field = known[key.lower()]
        if item is not None and not (field.read_only and drop_read_only):
            out[field.name] = canonical(space, field.kind, item, drop_read_only=drop_read_only)
    return out
