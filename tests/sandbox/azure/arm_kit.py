"""What the tests of the emulated Azure share: unmodified Azure SDK clients, bodies that ARM accepts, and an engine."""

from __future__ import annotations

import base64
import copy
import functools
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from google.protobuf import any_pb2, json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from deployer.sandbox.azure import ArmServer

REGION = "westeurope"
PUBLIC_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode() + " test"
USER_DATA = "#cloud-config\nhostname: test\n"
SECRET = "4dabf18193072939515e22adb298388d"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with `change` put over it, at every depth; `...` (Ellipsis) takes a key away."""
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is ...:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


@dataclass
class Azure:
    """One subscription of an emulated Azure, with the SDK's own clients."""

    server: ArmServer
    subscription: str
    environment: dict[str, str]
    resources: ResourceManagementClient = field(init=False)
    network: NetworkManagementClient = field(init=False)
    compute: ComputeManagementClient = field(init=False)

    def __post_init__(self) -> None:
        self.resources = self.client(ResourceManagementClient)
        self.network = self.client(NetworkManagementClient)
        self.compute = self.client(ComputeManagementClient)

    def credential(self, **changes: str) -> ClientSecretCredential:
        own = {**self.environment, **changes}
        names = ("ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET")
        return _credential(self.server.url, str(self.server.ca_file), *(own[name] for name in names))

    def client(self, kind: Any, subscription: str | None = None, **changes: str) -> Any:
        url = self.server.url
        return kind(
            self.credential(**changes),
            subscription or self.subscription,
            base_url=url,
            credential_scopes=[f"{url}/.default"],
            connection_verify=str(self.server.ca_file),
        )

    # -- shortcuts: each makes one thing that ARM accepts, with changes where a test wants some ------------------
    def group(self, name: str = "rg", region: str = REGION) -> Any:
        return self.resources.resource_groups.create_or_update(name, {"location": region})

    def vnet(self, name: str = "vnet", group: str = "rg", **change: Any) -> Any:
        body = {"location": REGION, "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}}
        return self.network.virtual_networks.begin_create_or_update(group, name, merged(body, change)).result()

    def subnet(self, name: str = "subnet", vnet: str = "vnet", group: str = "rg", **properties: Any) -> Any:
        body = {"properties": {"addressPrefix": "10.0.0.0/24", **properties}}
        return self.network.subnets.begin_create_or_update(group, vnet, name, body).result()

    def nsg(self, name: str = "nsg", group: str = "rg", **change: Any) -> Any:
        begin = self.network.network_security_groups.begin_create_or_update
        return begin(group, name, merged({"location": REGION}, change)).result()

    def rule(self, name: str = "ssh", nsg: str = "nsg", group: str = "rg", **properties: Any) -> Any:
        body = {"properties": {**RULE, **properties}}
        return self.network.security_rules.begin_create_or_update(group, nsg, name, body).result()

    def address(self, name: str = "ip", group: str = "rg", **change: Any) -> Any:
        begin = self.network.public_ip_addresses.begin_create_or_update
        return begin(group, name, merged(ADDRESS, change)).result()

    def nic(self, subnet: Any, address: Any = None, name: str = "nic", group: str = "rg", **change: Any) -> Any:
        config: dict[str, Any] = {"name": "primary", "properties": {"subnet": {"id": subnet.id}}}
        if address is not None:
            config["properties"]["publicIPAddress"] = {"id": address.id}
        body = {"location": REGION, "properties": {"ipConfigurations": [config]}}
        return self.network.network_interfaces.begin_create_or_update(group, name, merged(body, change)).result()

    def disk(self, name: str = "data", group: str = "rg", **change: Any) -> Any:
        return self.compute.disks.begin_create_or_update(group, name, merged(DISK, change)).result()

    def vm(self, nic: Any, name: str = "vm", group: str = "rg", **change: Any) -> Any:
        begin = self.compute.virtual_machines.begin_create_or_update
        return begin(group, name, vm_body(nic.id, **change)).result()

    def network_for_vm(self) -> Any:
        """A group, a network, an address and an interface: what a machine needs. Returns the interface."""
        self.group()
        self.vnet()
        return self.nic(self.subnet(), self.address())

    def kinds(self) -> dict[str, int]:
        """How many of each kind of resource exist in this subscription."""
        found: dict[str, int] = {}
        for item in self.server.inventory():
            if item.account == self.subscription:
                kind = item.kind.rsplit("/", 1)[1]
                found[kind] = found.get(kind, 0) + 1
        return found


RULE = {
    "priority": 100,
    "access": "Allow",
    "direction": "Inbound",
    "protocol": "Tcp",
    "sourceAddressPrefix": "198.51.100.10/32",
    "sourcePortRange": "*",
    "destinationAddressPrefix": "*",
    "destinationPortRange": "22",
}
ADDRESS = {
    "location": REGION,
    "sku": {"name": "Standard"},
    "zones": ["1", "2", "3"],
    "properties": {"publicIPAllocationMethod": "Static"},
}
DISK = {
    "location": REGION,
    "sku": {"name": "Premium_LRS"},
    "properties": {"diskSizeGB": 32, "creationData": {"createOption": "Empty"}},
}


def vm_body(nic: str, **change: Any) -> dict[str, Any]:
    """A machine's body that ARM accepts; `properties=…` and the like are put over it."""
    body = {
        "location": REGION,
        "tags": {"fedspan-participant": "site-1"},
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "networkProfile": {"networkInterfaces": [{"id": nic, "properties": {"primary": True}}]},
            "storageProfile": {
                "imageReference": {
                    "publisher": "Canonical",
                    "offer": "ubuntu-24_04-lts",
                    "sku": "server",
                    "version": "latest",
                },
                "osDisk": {"name": "os", "createOption": "FromImage", "deleteOption": "Delete", "diskSizeGB": 64},
            },
            "osProfile": {
                "computerName": "site-1",
                "adminUsername": "fedspan",
                "customData": base64.b64encode(USER_DATA.encode()).decode(),
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "ssh": {"publicKeys": [{"keyData": PUBLIC_KEY, "path": "/home/fedspan/.ssh/authorized_keys"}]},
                },
            },
        },
    }
    return merged(body, change)


@contextmanager
def refused(code: str, *words: str, status: int | None = None) -> Iterator[pytest.ExceptionInfo[HttpResponseError]]:
    """The SDK must raise ARM's error `code`, at once or when the operation ends, with all `words` in its message."""
    with pytest.raises(HttpResponseError) as caught:
        yield caught
    error = caught.value
    found = getattr(error.error, "code", None)
    text = str(error)
    details = [detail.code for detail in getattr(error.error, "details", None) or []]
    assert code == found or code in details, text
    for word in words:
        assert word in text
    if status is not None:
        assert error.status_code == status


@functools.cache
def _credential(url: str, ca_file: str, tenant: str, client: str, secret: str) -> ClientSecretCredential:
    """One credential for all tests that use the same identity: it keeps its token."""
    return ClientSecretCredential(
        tenant, client, secret, authority=url, disable_instance_discovery=True, connection_verify=ca_file
    )


# -- the provider plugin -----------------------------------------------------------------------------------------
class Failed(Exception):
    """The plugin answered with an error. `init`: the resource exists (its id and outputs), but is not as asked for."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.init: provider_pb2.ErrorResourceInitFailed | None = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
                detail: any_pb2.Any = status.details[0]
                self.init = provider_pb2.ErrorResourceInitFailed()
                detail.Unpack(self.init)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value["value"]) if SECRET in value else {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value == int(value) else value


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    out = struct_pb2.Struct()
    out.update(values)
    return out


class Plugin:
    """The engine's side of a plugin: what it would call, with names instead of URNs."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address="127.0.0.1:1"))

    def configure(self, **config: Any) -> None:
        self._call(self.stub.Configure, provider_pb2.ConfigureRequest(args=struct(config), acceptSecrets=True))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=60)
        except grpc.RpcError as error:
            raise Failed(error) from None

    @staticmethod
    def urn(token: str, name: str) -> str:
        return f"urn:pulumi:dev::p::{token}::{name}"

    def check(
        self, token: str, name: str, news: dict[str, Any], olds: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        answer = self._call(
            self.stub.Check,
            provider_pb2.CheckRequest(
                urn=self.urn(token, name), news=struct(news), olds=struct(olds or {}), randomSeed=b"seed" * 8
            ),
        )
        return json_format.MessageToDict(answer.inputs), {f.property: f.reason for f in answer.failures}

    def create(
        self, token: str, name: str, news: dict[str, Any], *, preview: bool = False, timeout: float = 0
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Check, then Create: the id, the checked inputs, the outputs."""
        inputs, failures = self.check(token, name, news)
        assert not failures
        request = provider_pb2.CreateRequest(
            urn=self.urn(token, name), properties=struct(inputs), preview=preview, timeout=timeout
        )
        answer = self._call(self.stub.Create, request)
        return answer.id, inputs, json_format.MessageToDict(answer.properties)

    def diff(
        self, token: str, name: str, resource_id: str, inputs: dict[str, Any], outputs: dict[str, Any], news: Any
    ) -> provider_pb2.DiffResponse:
        checked, failures = self.check(token, name, news, inputs)
        assert not failures
        request = provider_pb2.DiffRequest(
            id=resource_id,
            urn=self.urn(token, name),
            olds=struct(outputs),
            old_inputs=struct(inputs),
            news=struct(checked),
        )
        return self._call(self.stub.Diff, request)

    def update(
        self, token: str, name: str, resource_id: str, inputs: dict[str, Any], outputs: dict[str, Any], news: Any
    ) -> dict[str, Any]:
        checked, _ = self.check(token, name, news, inputs)
        request = provider_pb2.UpdateRequest(
            id=resource_id,
            urn=self.urn(token, name),
            olds=struct(outputs),
            old_inputs=struct(inputs),
            news=struct(checked),
        )
        return json_format.MessageToDict(self._call(self.stub.Update, request).properties)

    def read(
        self, token: str, resource_id: str, inputs: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        request = provider_pb2.ReadRequest(
            id=resource_id, urn=self.urn(token, "x"), inputs=struct(inputs or {}), properties=struct(outputs or {})
        )
        answer = self._call(self.stub.Read, request)
        return answer.id, json_format.MessageToDict(answer.inputs), json_format.MessageToDict(answer.properties)

    def delete(self, token: str, resource_id: str) -> None:
        self._call(self.stub.Delete, provider_pb2.DeleteRequest(id=resource_id, urn=self.urn(token, "x")))

    def invoke(self, token: str, **args: Any) -> dict[str, Any]:
        answer = self._call(self.stub.Invoke, provider_pb2.InvokeRequest(tok=token, args=struct(args)))
        return json_format.MessageToDict(getattr(answer, "return"))


@contextmanager
def serving(provider: Any) -> Iterator[str]:
    """The plugin's server, at the address that it answers."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
