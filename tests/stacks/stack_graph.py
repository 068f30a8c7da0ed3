"""Runs a participant's program against recording mocks: what it registers, with which inputs and options."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from pulumi.runtime import mocks
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import set_root_resource
from pulumi.runtime.stack import run_in_stack

from stacks.access import AwsAccess, AzureAccess
from stacks.args import ParticipantArgs
from stacks.program import participant_program

_SPECIAL = "4dabf18193072939515e22adb298388d"


VM_ID = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm"
"""Of a machine with an identity: its role is made from it."""


@dataclass
class Registered:
    """One registration: inputs as they go over the wire (secrets unwrapped, their paths noted), and the options."""

    type: str
    name: str
    custom: bool
    inputs: dict[str, Any]
    secret: frozenset[str]
    request: Any = field(repr=False)
    id: str = ""

    @property
    def depends_on(self) -> set[str]:
        return {urn.rsplit("::", 1)[1] for urn in self.request.dependencies}

    @property
    def parent(self) -> str:
        return str(self.request.parent.rsplit("::", 1)[-1])


@dataclass
class Graph:
    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Registered:
        (found,) = [r for r in self.resources if r.name == name]
        return found

    def of_type(self, token: str) -> list[Registered]:
        return [r for r in self.resources if r.type == token]

    @property
    def cloud(self) -> list[Registered]:
        """What exists in a cloud: no component, no provider, no stack."""
        return [r for r in self.resources if r.custom and not r.type.startswith("pulumi:")]


_NAME_INPUTS = {
    "azure-native:resources:ResourceGroup": "resourceGroupName",
    "azure-native:network:VirtualNetwork": "virtualNetworkName",
    "azure-native:network:NetworkSecurityGroup": "networkSecurityGroupName",
    "azure-native:network:Subnet": "subnetName",
    "azure-native:network:SecurityRule": "securityRuleName",
    "azure-native:network:PublicIPAddress": "publicIpAddressName",
    "azure-native:network:NetworkInterface": "networkInterfaceName",
    "azure-native:compute:Disk": "diskName",
    "azure-native:compute:VirtualMachine": "vmName",
    "azure-native:compute:VirtualMachineExtension": "vmExtensionName",
}


class _Mocks(mocks.Mocks):
    """Answers as the clouds would, as far as the programs read it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        kind, extra = args.typ, {}
        if kind == "aws:ec2/eip:Eip":
            extra = {"publicIp": "203.0.113.50"}
        elif kind == "aws:ec2/networkInterface:NetworkInterface":
            extra = {"privateIp": "10.42.0.5"}
        elif kind == "aws:ec2/subnet:Subnet":
            extra = {"availabilityZone": args.inputs.get("availabilityZone") or "eu-central-1c"}
        elif kind == "azure-native:network:PublicIPAddress":
            extra = {"ipAddress": "203.0.113.60"}
        elif kind == "azure-native:network:NetworkInterface":
            configurations = [{**c, "privateIPAddress": "10.42.0.4"} for c in args.inputs["ipConfigurations"]]
            extra = {"ipConfigurations": configurations}
        elif kind == "azure-native:compute:VirtualMachine" and args.inputs.get("identity"):
            extra = {"identity": {**args.inputs["identity"], "principalId": "0000-its-own"}}
        if kind in _NAME_INPUTS:
            extra["name"] = args.inputs[_NAME_INPUTS[kind]]
        made = VM_ID if extra.get("identity") else f"id-of-{args.name}"
        return made, {**args.inputs, **extra}

    def call(self, args: mocks.MockCallArgs) -> Any:
        self.graph.calls.append((args.token, dict(args.args)))
        return {**args.args, "value": "ami-0123456789abcdef0", "insecureValue": "ami-0123456789abcdef0", "id": "x"}


class _Monitor(mocks.MockMonitor):
    """Notes each registration whole: pulumi's own keeps the inputs only."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(_Mocks(graph))
        self.graph = graph

    def RegisterResource(self, request: Any) -> Any:
        if request.type != "pulumi:pulumi:Stack":
            copy = resource_pb2.RegisterResourceRequest()
            copy.CopyFrom(request)
            inputs, secret = _plain(json_format.MessageToDict(request.object))
            self.graph.resources.append(
                Registered(request.type, request.name, request.custom, inputs, frozenset(secret), copy)
            )
        return super().RegisterResource(request)

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.graph.outputs, _ = _plain(json_format.MessageToDict(request.outputs))
        return super().RegisterResourceOutputs(request)


def _plain(value: Any, path: str = "") -> tuple[Any, list[str]]:
    """Unwrap secrets and references; return the plain value and the paths that were secret. Whole numbers as int."""
    if isinstance(value, Mapping):
        if _SPECIAL in value:
            return _plain(value.get("value"), path)[0], [path]
        out: dict[str, Any] = {}
        secret: list[str] = []
        for key, item in value.items():
            out[key], found = _plain(item, f"{path}.{key}" if path else key)
            secret += found
        return out, secret
    if isinstance(value, list):
        items = [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
        return [item for item, _ in items], [p for _, found in items for p in found]
    if isinstance(value, float) and value.is_integer():
        return int(value), []
    return value, []


def run(cloud: str, args: ParticipantArgs, stage: str = "full", access: Any = None) -> Graph:
    """Run the program that the Automation API would run, to its end, and return all that it registered and exported."""
    if access is None:
        access = (
            AwsAccess(region=args.region, account_id="111111111111")
            if cloud == "aws"
            else AzureAccess(subscription_id="00000000-0000-0000-0000-000000000001", location=args.region)
        )
    graph = Graph()
    program = participant_program(cloud, args, access, stage)  # type: ignore[arg-type]

    def in_own_context() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            mocks.set_mocks(_Mocks(graph), project="fedspan", stack=args.participant, monitor=_Monitor(graph))
            set_root_resource(None)  # type: ignore[arg-type]  # run_in_stack makes the root of its own
            loop.run_until_complete(run_in_stack(program))
        finally:
            loop.close()
            asyncio.set_event_loop(None)

    contextvars.copy_context().run(in_own_context)
    return graph
