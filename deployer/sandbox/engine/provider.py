"""The client of one provider plugin, attached by PULUMI_DEBUG_PROVIDERS: every call of Pulumi's provider protocol
that the engine makes, in the engine's terms (plain properties, `ProviderError`, `InitFailed`).

A plugin that was configured with a value not yet known (in a preview) is not asked anything: it answers as an engine
must then answer for it, with unknowns.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from . import difference, urns, wire
from .difference import Diff
from .problems import InitFailed, ProviderError
from .state import Resource
from .values import UNKNOWN, Properties, has_unknown, keep_secret, plain

CHANNEL = [("grpc.max_receive_message_length", 400 * 1024 * 1024), ("grpc.max_send_message_length", -1)]
Failures = list[tuple[str, str]]  # property, reason


class Provider:
    """One connection to a plugin, from Handshake to Cancel."""

    def __init__(self, package: str, port: int, engine_address: str) -> None:
        self.package = package
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.accept_secrets = self.accept_resources = False
        self.supports_preview = False
        self.unconfigured = False  # its configuration has unknowns: nothing may be asked
        self.configure_error: ProviderError | None = None
        self._inputs_seed = os.urandom(32)
        self._handshake(engine_address)

    # -- life cycle ------------------------------------------------------------------------------------------------
    def _handshake(self, engine_address: str) -> None:
        request = provider_pb2.ProviderHandshakeRequest(
            engine_address=engine_address, configure_with_urn=True, invoke_with_preview=True
        )
        try:
            answer = self._call(self.stub.Handshake, request)
            self.accept_secrets, self.accept_resources = answer.accept_secrets, answer.accept_resources
        except _Unimplemented:
            pass  # an older plugin: it takes neither secrets nor references, as assumed before
        with contextlib.suppress(_Unimplemented):
            self._call(self.stub.Attach, plugin_pb2.PluginAttach(address=engine_address))

    def configure(self, resource: Resource, inputs: Properties, id_: str) -> None:
        """Hands over the configuration. What goes wrong is told when the provider is first needed."""
        inputs = config_of(inputs)
        if has_unknown(inputs):
            self.unconfigured = True
            return
        variables = {f"{self.package}:config:{k}": _text(v) for k, v in inputs.items()}
        request = provider_pb2.ConfigureRequest(
            variables=variables,
            acceptSecrets=True,
            acceptResources=True,
            sends_old_inputs=True,
            sends_old_inputs_to_delete=True,
            id=id_,
            urn=resource.urn,
            name=urns.name_of(resource.urn),
            type=resource.type,
            args=wire.encode(inputs, secrets=self.accept_secrets, resources=self.accept_resources),
        )
        try:
            answer = self._call(self.stub.Configure, request)
        except ProviderError as error:
            self.configure_error = error
            return
        self.supports_preview = answer.supportsPreview
        self.accept_secrets |= answer.acceptSecrets
        self.accept_resources |= answer.acceptResources

    def cancel(self) -> None:
        """Asks the plugin to give up what it is doing."""
        with contextlib.suppress(grpc.RpcError):  # it is gone, or it knows no Cancel: nothing is left to cancel
            self.stub.Cancel(empty_pb2.Empty(), timeout=5)

    def close(self) -> None:
        self.cancel()
        self.channel.close()

    # -- configuration ---------------------------------------------------------------------------------------------
    def check_config(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, Failures]:
        request = provider_pb2.CheckRequest(
            urn=urn,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            olds=wire.encode(config_of(olds), secrets=False),
            news=wire.encode(config_of(news), secrets=False),
        )
        try:
            answer = self._call(self.stub.CheckConfig, request)
        except _Unimplemented:
            return news, []
        inputs = {**wire.decode(answer.inputs), **{k: v for k, v in news.items() if k == INTERNAL}}
        return keep_secret(inputs, news), [(f.property, f.reason) for f in answer.failures]

    def diff_config(self, urn: str, old: Resource, news: Properties) -> Diff:
        request = provider_pb2.DiffRequest(
            urn=urn,
            id=old.id,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            old_inputs=wire.encode(config_of(old.inputs), secrets=False),
            olds=wire.encode(config_of(old.outputs), secrets=False),
            news=wire.encode(config_of(news), secrets=False),
        )
        try:
            return difference.read(self._call(self.stub.DiffConfig, request))
        except _Unimplemented:
            return Diff(changes=None)

    # -- resources -------------------------------------------------------------------------------------------------
    def check(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, Failures]:
        self._ready()
        if self.unconfigured:
            return news, []
        request = provider_pb2.CheckRequest(
            urn=urn,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            randomSeed=self._inputs_seed,
            olds=self._struct(olds),
            news=self._struct(news),
        )
        answer = self._call(self.stub.Check, request)
        return keep_secret(wire.decode(answer.inputs), news), [(f.property, f.reason) for f in answer.failures]

    def diff(
        self, urn: str, id_: str, old_inputs: Properties, old_outputs: Properties, news: Properties, ignore: list[str]
    ) -> Diff:
        self._ready()
        if self.unconfigured:
            return Diff(changes=None)
        request = provider_pb2.DiffRequest(
            urn=urn,
            id=id_,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            ignoreChanges=ignore,
            old_inputs=self._struct(old_inputs),
            olds=self._struct(old_outputs),
            news=self._struct(news),
        )
        return difference.read(self._call(self.stub.Diff, request))

    def create(self, urn: str, inputs: Properties, timeout: float, *, preview: bool) -> tuple[str, Properties]:
        """The new resource's id and outputs; in a preview the id is empty."""
        self._ready()
        if preview and (self.unconfigured or not self.supports_preview):
            return "", dict.fromkeys(inputs, UNKNOWN) if self.unconfigured else dict(inputs)
        request = provider_pb2.CreateRequest(
            urn=urn,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            properties=self._struct(inputs),
            timeout=timeout,
            preview=preview,
        )
        answer = self._call(self.stub.Create, request)
        if not answer.id and not preview:
            raise ProviderError(f"plugin for package '{self.package}' returned empty resource.ID from create '{urn}'")
        return answer.id, keep_secret(wire.decode(answer.properties), inputs)

    def update(self, old: Resource, new: Resource, timeout: float, *, preview: bool) -> Properties:
        self._ready()
        if preview and (self.unconfigured or not self.supports_preview):
            return dict(new.inputs)
        request = provider_pb2.UpdateRequest(
            id=old.id,
            urn=new.urn,
            name=urns.name_of(new.urn),
            type=new.type,
            timeout=timeout,
            preview=preview,
            ignoreChanges=new.ignore_changes,
            olds=self._struct(old.outputs),
            old_inputs=self._struct(old.inputs),
            news=self._struct(new.inputs),
        )
        return dict(keep_secret(wire.decode(self._call(self.stub.Update, request).properties), new.inputs))

    def delete(self, old: Resource, timeout: float) -> None:
        self._ready()
        request = provider_pb2.DeleteRequest(
            id=old.id,
            urn=old.urn,
            name=urns.name_of(old.urn),
            type=old.type,
            timeout=timeout,
            properties=self._struct(old.outputs),
            old_inputs=self._struct(old.inputs),
        )
        self._call(self.stub.Delete, request)

    def read(
        self, urn: str, id_: str, inputs: Properties, outputs: Properties, timeout: float = 0
    ) -> tuple[str, Properties | None, Properties]:
        """Id, inputs (None when the provider gives none) and outputs of what is there; the id is empty when it is
        gone.
        """
        self._ready()
        if self.unconfigured:
            return id_, None, {}
        request = provider_pb2.ReadRequest(
            id=id_,
            urn=urn,
            name=urns.name_of(urn),
            type=urns.type_of(urn),
            timeout=timeout,
            properties=self._struct(outputs),
            inputs=self._struct(inputs),
        )
        answer = self._call(self.stub.Read, request)
        if not answer.id:
            return "", None, {}
        read = keep_secret(wire.decode(answer.inputs), inputs) if answer.HasField("inputs") else None
        return answer.id, read, keep_secret(wire.decode(answer.properties), outputs)

    def invoke(self, token: str, args: Properties, *, preview: bool) -> tuple[struct_pb2.Struct, Any]:
        self._ready()
        request = provider_pb2.InvokeRequest(tok=token, args=self._struct(args), preview=preview)
        answer = self._call(self.stub.Invoke, request)
        return getattr(answer, "return"), answer.failures

    # -- the wire --------------------------------------------------------------------------------------------------
    def _ready(self) -> None:
        if self.configure_error is not None:
            raise self.configure_error

    def _struct(self, values: Properties) -> struct_pb2.Struct:
        return wire.encode(values, secrets=self.accept_secrets, resources=self.accept_resources)

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request)
        except grpc.RpcError as error:
            raise _problem(error) from None


INTERNAL = "__internal"  # what the engine itself keeps in a provider's inputs


def config_of(inputs: Properties) -> Properties:
    return {k: v for k, v in inputs.items() if k != INTERNAL}


class _Unimplemented(ProviderError):
    pass


def _text(value: Any) -> str:
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value)


def details_of(error: grpc.RpcError) -> str:
    """What the other side says of a failed call."""
    call: Any = error  # the exception is the call itself, of which the type says nothing
    return call.details() or str(error)


def _problem(error: grpc.RpcError) -> ProviderError:
    """The error of a call: 'created but not initialised' is told in the status details."""
    call: Any = error
    code, details = call.code(), call.details() or ""
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for packed in status.details:
                if packed.Is(provider_pb2.ErrorResourceInitFailed.DESCRIPTOR):
                    init = provider_pb2.ErrorResourceInitFailed()
                    packed.Unpack(init)
                    inputs = wire.decode(init.inputs) if init.HasField("inputs") else None
                    return InitFailed(init.id, list(init.reasons), wire.decode(init.properties), inputs)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return _Unimplemented(details)
    if code == grpc.StatusCode.UNAVAILABLE:
        refused = "refused" in details or "Failed to connect" in details
        return ProviderError(f"connection error: {details}" if refused else "error reading from server: EOF")
    return ProviderError(details)
