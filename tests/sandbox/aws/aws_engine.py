"""A few lines of an engine for tests: it speaks the provider protocol to a plugin over a real gRPC connection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from deployer.sandbox.provider_values import from_struct, plain, to_struct

NAMES = {0: "add", 1: "add-replace", 2: "delete", 3: "delete-replace", 4: "update", 5: "update-replace"}


@dataclass
class Resource:
    """What an engine's state holds of one resource."""

    type: str
    name: str
    id: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def urn(self) -> str:
        return f"urn:pulumi:dev::proj::{self.type}::{self.name}"

    def __getitem__(self, key: str) -> Any:
        return plain(self.outputs)[key]


class InitFailed(Exception):
    def __init__(self, detail: provider_pb2.ErrorResourceInitFailed) -> None:
        super().__init__("; ".join(detail.reasons))
        self.detail = detail


class CheckFailed(Exception):
    pass


class Engine:
    """One connection to a plugin, used as the engine uses it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.made: list[Resource] = []

    def configure(self, **config: Any) -> Engine:
        self.stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address="127.0.0.1:1"))
        self.stub.Attach(plugin_pb2.PluginAttach(address="127.0.0.1:1"))
        checked = self.stub.CheckConfig(provider_pb2.CheckRequest(urn="urn", news=to_struct(config)))
        if checked.failures:
            raise CheckFailed("; ".join(f.reason for f in checked.failures))
        self.stub.Configure(provider_pb2.ConfigureRequest(args=checked.inputs, acceptSecrets=True))
        return self

    def cancel(self) -> None:
        self.stub.Cancel(empty_pb2.Empty())

    def invoke(self, token: str, **args: Any) -> dict[str, Any]:
        answer = self.stub.Invoke(provider_pb2.InvokeRequest(tok=token, args=to_struct(args)))
        return from_struct(getattr(answer, "return"))

    def check(self, resource: Resource, news: dict[str, Any], olds: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.stub.Check(
            provider_pb2.CheckRequest(
                urn=resource.urn,
                name=resource.name,
                type=resource.type,
                news=to_struct(news),
                olds=to_struct(olds or {}),
                randomSeed=b"seed of " + resource.name.encode(),
            )
        )
        if answer.failures:
            raise CheckFailed("; ".join(f"{f.property}: {f.reason}" for f in answer.failures))
        return from_struct(answer.inputs)

    def preview(self, type_: str, name: str, /, **inputs: Any) -> dict[str, Any]:
        resource = Resource(type_, name)
        checked = self.check(resource, inputs)
        answer = self.stub.Create(
            provider_pb2.CreateRequest(
                urn=resource.urn, name=name, type=type_, properties=to_struct(checked), preview=True
            )
        )
        return from_struct(answer.properties)

    def create(self, type_: str, name_: str, /, *, timeout: float = 0, **inputs: Any) -> Resource:
        resource = Resource(type_, name_)
        resource.inputs = self.check(resource, inputs)
        try:
            answer = self.stub.Create(
                provider_pb2.CreateRequest(
                    urn=resource.urn, name=name_, type=type_, properties=to_struct(resource.inputs), timeout=timeout
                )
            )
        except grpc.RpcError as error:
            _raise_init(error)
            raise
        resource.id, resource.outputs = answer.id, from_struct(answer.properties)
        self.made.append(resource)
        return resource

    def diff(
        self, resource: Resource, /, *, ignore: tuple[str, ...] = (), **inputs: Any
    ) -> tuple[dict[str, str], provider_pb2.DiffResponse]:
        """What would change if the program said `inputs`: path -> kind, and the whole answer."""
        news = self.check(resource, inputs, resource.inputs)
        answer = self.stub.Diff(
            provider_pb2.DiffRequest(
                id=resource.id,
                urn=resource.urn,
                name=resource.name,
                type=resource.type,
                olds=to_struct(resource.outputs),
                old_inputs=to_struct(resource.inputs),
                news=to_struct(news),
                ignoreChanges=list(ignore),
            )
        )
        return {path: NAMES[detail.kind] for path, detail in answer.detailedDiff.items()}, answer

    def update(self, resource: Resource, /, **inputs: Any) -> Resource:
        news = self.check(resource, inputs, resource.inputs)
        try:
            answer = self.stub.Update(
                provider_pb2.UpdateRequest(
                    id=resource.id,
                    urn=resource.urn,
                    name=resource.name,
                    type=resource.type,
                    olds=to_struct(resource.outputs),
                    old_inputs=to_struct(resource.inputs),
                    news=to_struct(news),
                )
            )
        except grpc.RpcError as error:
            _raise_init(error)
            raise
        resource.inputs, resource.outputs = news, from_struct(answer.properties)
        return resource

    def read(self, resource: Resource, *, importing: bool = False) -> Resource | None:
        answer = self.stub.Read(
            provider_pb2.ReadRequest(
                id=resource.id,
                urn=resource.urn,
                name=resource.name,
                type=resource.type,
                properties=to_struct({} if importing else resource.outputs),
                inputs=to_struct({} if importing else resource.inputs),
            )
        )
        if not answer.id:
            return None
        return Resource(
            resource.type, resource.name, answer.id, from_struct(answer.inputs), from_struct(answer.properties)
        )

    def delete(self, resource: Resource) -> None:
        self.stub.Delete(
            provider_pb2.DeleteRequest(
                id=resource.id,
                urn=resource.urn,
                name=resource.name,
                type=resource.type,
                properties=to_struct(resource.outputs),
                old_inputs=to_struct(resource.inputs),
            )
        )
        self.made = [item for item in self.made if item is not resource]

    def destroy(self) -> None:
        for resource in reversed(self.made[:]):
            self.delete(resource)


def _raise_init(error: grpc.RpcError) -> None:
    for key, value in error.trailing_metadata() or ():  # type: ignore[attr-defined]
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            detail = provider_pb2.ErrorResourceInitFailed()
            if status.details and status.details[0].Unpack(detail):
                raise InitFailed(detail) from error


@contextlib.contextmanager
def serving(plugin: provider_pb2_grpc.ResourceProviderServicer) -> Iterator[str]:
    """Serves a plugin on loopback; gives its address."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
