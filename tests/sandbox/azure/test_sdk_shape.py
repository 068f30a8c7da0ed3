"""The plugin's types and names are those of the installed Pulumi SDK and of the installed Azure SDK."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pulumi
import pytest

from deployer.sandbox.azure import schema
from deployer.sandbox.azure.flat import fields, from_rest, to_rest
from deployer.sandbox.azure.native_types import TYPES, NativeType

# A field of a later Azure API, and one that the two SDKs write differently.
APART = {"lastOwnershipUpdateTime"}
# Pulumi shows the id of an object within as the model's own; none of the stacks has such a thing.
LIFTED = {"IpamPoolPrefixAllocation"}


def _class(definition: NativeType) -> Any:
    _, module, name = definition.token.split(":")
    return getattr(importlib.import_module(f"pulumi_azure_native.{module}"), name)


def _names(cls: Any) -> dict[str, str]:
    """The Python names of a Pulumi class's properties, and their names on the wire."""
    found = {}
    for name, value in inspect.getmembers(cls, lambda member: isinstance(member, property)):
        found[name] = getattr(value.fget, "_pulumi_name", name)
    return found


@pytest.mark.parametrize("definition", TYPES, ids=lambda definition: definition.model)
def test_every_output_of_the_pulumi_class_is_one_of_the_plugins(definition: NativeType) -> None:
    cls = _class(definition)
    assert issubclass(cls, pulumi.CustomResource)
    outputs = set(_names(cls).values()) - {"id", "urn", "pulumi_resource_name", "pulumi_resource_type"} - APART
    assert outputs <= definition.outputs


@pytest.mark.parametrize("definition", TYPES, ids=lambda definition: definition.model)
def test_every_argument_of_the_pulumi_class_is_an_input_and_the_required_ones_are_required(
    definition: NativeType,
) -> None:
    module = importlib.import_module(_class(definition).__module__)
    args = next(
        getattr(module, name)
        for name in (f"{definition.model}InitArgs", f"{definition.model}Args")
        if hasattr(module, name)
    )
    names = _names(args)
    assert set(names.values()) <= definition.inputs
    parameters = list(inspect.signature(args.__init__).parameters.values())[1:]
    required = {names[p.name] for p in parameters if p.default is inspect.Parameter.empty}
    assert required == {*definition.path[:-1], *definition.required}


@pytest.mark.parametrize("definition", TYPES, ids=lambda definition: definition.model)
def test_the_token_is_the_one_that_the_pulumi_class_registers(definition: NativeType) -> None:
    source = inspect.getsource(importlib.import_module(_class(definition).__module__))
    tokens = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert definition.token in tokens


def _models(space: str, name: str, seen: set[str]) -> set[str]:
    """All models that can be reached from one, by name."""
    if name in seen:
        return seen
    seen.add(name)
    for field, _ in fields(space, name).values():
        kind = field.kind
        while kind.item is not None:
            kind = kind.item
        if kind.model:
            _models(space, kind.model, seen)
    return seen


@pytest.mark.parametrize("space", ["network", "compute"])
def test_nested_argument_types_have_the_models_names(space: str) -> None:
    """Every nested Args class of Pulumi has, by its name, an Azure model with all of its properties."""
    inputs = importlib.import_module(f"pulumi_azure_native.{space}._inputs")
    reachable: set[str] = set()
    for definition in TYPES:
        if definition.space == space:
            _models(space, definition.model, reachable)
    checked = 0
    for name in sorted(reachable):
        args = getattr(inputs, f"{name}Args", None)
        if args is None:
            continue
        if name in LIFTED:
            continue
        assert set(_names(args).values()) <= set(fields(space, name)), name
        checked += 1
    assert checked > 40


def test_flat_and_nested_shapes_turn_into_one_another() -> None:
    kind = schema.Kind("object", model="NetworkInterface")
    flat = {
        "location": "westeurope",
        "enableAcceleratedNetworking": True,
        "ipConfigurations": [
            {"name": "p", "primary": True, "subnet": {"id": "/s", "addressPrefix": "10.0.0.0/24"}},
        ],
    }
    nested = to_rest("network", kind, flat)
    assert nested == {
        "location": "westeurope",
        "properties": {
            "enableAcceleratedNetworking": True,
            "ipConfigurations": [
                {
                    "name": "p",
                    "properties": {
                        "primary": True,
                        "subnet": {"id": "/s", "properties": {"addressPrefix": "10.0.0.0/24"}},
                    },
                }
            ],
        },
    }
    assert from_rest("network", kind, nested) == flat
    extension = schema.Kind("object", model="VirtualMachineExtension")
    assert to_rest("compute", extension, {"type": "NvidiaGpuDriverLinux"}) == {
        "properties": {"type": "NvidiaGpuDriverLinux"}
    }


def test_a_models_fields_are_gathered_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK changes a class while it goes through its attributes: two threads at once and one of them fails."""
    busy = threading.Lock()
    space = ModuleType("slow_models")

    class Slow:
        _attr_to_rest_field: dict[str, Any] = {}

        def __new__(cls) -> Slow:
            assert busy.acquire(blocking=False), "another thread is gathering"
            time.sleep(0.01)
            busy.release()
            return super().__new__(cls)

    names = [f"Model{number}" for number in range(8)]
    for name in names:
        setattr(space, name, type(name, (Slow,), {}))
    monkeypatch.setitem(sys.modules, space.__name__, space)
    monkeypatch.setitem(schema.MODULES, "slow", space.__name__)
    with ThreadPoolExecutor(len(names)) as pool:
        assert [one.name for one in pool.map(lambda name: schema.model("slow", name), names)] == names
