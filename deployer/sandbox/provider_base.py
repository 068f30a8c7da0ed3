"""What the sandbox's provider plugins share: Pulumi's provider protocol on one side, plain Python on the other.

A plugin is a `ProviderPlugin` with one `Resource` for each type and one function for each token. The base speaks the
protocol: handshake and configuration, secrets and unknowns, detailed differences, previews, time-outs, the
"created but not initialised" error, and Cancel, which ends every wait that is under way.

Requests carry no provider reference. The engine opens one connection for each provider resource, so the configuration
is kept for each connection; a connection that was never configured itself gets the last configuration that arrived.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from deployer.sandbox.provider_messages import decode_config, diff_response
from deployer.sandbox.provider_resource import (
    DEFAULT_TIMEOUT_S,
    Call,
    InitError,
    Live,
    OperationCancelled,
    ProviderError,
    Resource,
    Session,
    Values,
)
from deployer.sandbox.provider_values import (
    Change,
    changes,
    from_struct,
    get_path,
    has_unknown,
    mark_like,
    plain,
    to_struct,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

Function = Callable[[Call, Values], Values]


class ProviderPlugin(provider_pb2_grpc.ResourceProviderServicer):
    """A package's plugin. Subclasses set the class attributes, fill the two tables and implement `configure`."""

    package: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, resources: list[Resource], functions: Mapping[str, Function]) -> None:
        self.resources = {resource.token: resource for resource in resources}
        self.functions = dict(functions)
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._latest = Session()

    # -- what a package adds -----------------------------------------------------------------------------------
    def configure(self, config: Values) -> Any:
        """Whatever the resources need, made of the configuration; raises ProviderError."""
        return None

    def check_config(self, config: Values) -> list[tuple[str, str]]:
        return []

    def diff_config(self, old: Values, new: Values) -> frozenset[str]:
        """The changed settings that force a replacement of everything the provider made."""
        return frozenset()

    def explain(self, error: Exception, call: Call, verb: str) -> str | None:
        """The user's text for an SDK's exception, or None if it is none of the package's."""
        return None

    # -- life cycle --------------------------------------------------------------------------------------------
    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        self._renew(context, None)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=False)

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": self.package, "version": self.version}))

    def GetMapping(
        self, request: provider_pb2.GetMappingRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetMappingResponse:
        return provider_pb2.GetMappingResponse()

    def GetMappings(
        self, request: provider_pb2.GetMappingsRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetMappingsResponse:
        return provider_pb2.GetMappingsResponse()

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        config = decode_config(plain(from_struct(request.news)))
        failures = [provider_pb2.CheckFailure(property=k, reason=why) for k, why in self.check_config(config)]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        old = plain(from_struct(request.old_inputs)) or plain(from_struct(request.olds))
        new = plain(from_struct(request.news))
        found = [change for change in changes(old, new) if change.top != "version"]
        replaces = self.diff_config(decode_config(old), decode_config(new)) & {change.top for change in found}
        return diff_response(found, lambda change: change.top in replaces, False, replace_properties=sorted(replaces))

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        config = decode_config(plain(from_struct(request.args)))
        session = self._renew(context, config)
        self._run(context, Call(session, type=self.package), "configure", lambda: self._configure(session))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, acceptResources=True, acceptOutputs=False
        )

    def _configure(self, session: Session) -> None:
        # An unknown setting (a region that another resource will give) leaves the provider unconfigured in a preview.
        session.state = None if has_unknown(session.config) else self.configure(session.config)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._session(context).cancelled.set()
        return empty_pb2.Empty()

    # -- resources ---------------------------------------------------------------------------------------------
    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        news, olds = from_struct(request.news), plain(from_struct(request.olds))
        resource, call = self._resource(request, context), self._call(request, context, seed=request.randomSeed)
        inputs, failures = self._run(context, call, "check", lambda: resource.check(call, plain(news), olds))
        return provider_pb2.CheckResponse(
            inputs=to_struct(mark_like(news, inputs)),
            failures=[provider_pb2.CheckFailure(property=key, reason=why) for key, why in failures],
        )

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        resource, call = self._resource(request, context), self._call(request, context)
        olds, news = plain(from_struct(request.olds)), plain(from_struct(request.news))
        old_inputs = plain(from_struct(request.old_inputs)) or olds
        found = self._run(context, call, "diff", lambda: resource.differences(call, old_inputs, news, olds))
        found = [change for change in found if not any(change.under(path) for path in request.ignoreChanges)]

        def replaces(change: Change) -> bool:
            return resource.replaces(change, old_inputs, news)

        return diff_response(found, replaces, resource.deletes_first(old_inputs, news))

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        given = from_struct(request.properties)
        inputs = plain(given)
        resource, call = self._resource(request, context), self._call(request, context, timeout=request.timeout)
        if request.preview:
            outputs = self._run(context, call, "preview", lambda: resource.preview(call, inputs, None))
            return provider_pb2.CreateResponse(properties=to_struct(mark_like(given, outputs)))
        resource_id, outputs = self._run(context, call, "create", lambda: resource.create(call, inputs), request)
        return provider_pb2.CreateResponse(id=resource_id, properties=to_struct(mark_like(given, outputs)))

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        state, given = from_struct(request.properties), from_struct(request.inputs)
        resource, call = self._resource(request, context), self._call(request, context)
        live = self._run(
            context, call, "read", lambda: resource.read(call, request.id, plain(state), plain(given)), request
        )
        if live is None:
            return provider_pb2.ReadResponse(id="")
        template = {**state, **given}
        return provider_pb2.ReadResponse(
            id=live.id or request.id,
            properties=to_struct(mark_like(template, live.outputs)),
            inputs=to_struct(mark_like(template, live.inputs)),
        )

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        given, olds = from_struct(request.news), plain(from_struct(request.olds))
        news, old_inputs = plain(given), plain(from_struct(request.old_inputs)) or olds
        resource, call = self._resource(request, context), self._call(request, context, timeout=request.timeout)
        if request.preview:
            outputs = self._run(context, call, "preview", lambda: resource.preview(call, news, olds))
        else:
            outputs = self._run(
                context, call, "update", lambda: resource.update(call, request.id, olds, news, old_inputs), request
            )
        return provider_pb2.UpdateResponse(properties=to_struct(mark_like(given, outputs)))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        state = plain(from_struct(request.properties))
        resource, call = self._resource(request, context), self._call(request, context, timeout=request.timeout)
        self._run(context, call, "delete", lambda: resource.delete(call, request.id, state))
        return empty_pb2.Empty()

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> provider_pb2.InvokeResponse:
        function = self.functions.get(request.tok)
        if function is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the sandbox does not emulate the function {request.tok}")
        call = Call(self._session(context), type=request.tok)
        result = self._run(context, call, "invoke", lambda: function(call, plain(from_struct(request.args))))
        answer = provider_pb2.InvokeResponse()
        getattr(answer, "return").CopyFrom(to_struct(result))  # the field bears a keyword's name
        return answer

    # -- plumbing ----------------------------------------------------------------------------------------------
    def _session(self, context: grpc.ServicerContext) -> Session:
        with self._lock:
            return self._sessions.get(context.peer(), self._latest)

    def _renew(self, context: grpc.ServicerContext, config: Values | None) -> Session:
        """A fresh session for this connection: an earlier operation's Cancel must not touch this one."""
        with self._lock:
            old = self._sessions.get(context.peer(), self._latest)
            session = Session(old.config, old.state) if config is None else Session(config)
            self._sessions[context.peer()] = self._latest = session
            return session

    def _resource(self, request: Any, context: grpc.ServicerContext) -> Resource:
        token = request.type or request.urn.split("::")[2].split("$")[-1]
        resource = self.resources.get(token)
        if resource is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the sandbox does not emulate resources of type {token}")
        return resource

    def _call(self, request: Any, context: grpc.ServicerContext, *, timeout: float = 0.0, seed: bytes = b"") -> Call:
        name = request.name or request.urn.split("::")[-1]
        token = request.type or request.urn.split("::")[2].split("$")[-1]
        return Call(self._session(context), request.urn, name, token, timeout or DEFAULT_TIMEOUT_S, seed)

    def _run(
        self, context: grpc.ServicerContext, call: Call, verb: str, work: Callable[[], T], request: Any = None
    ) -> T:
        """`work`'s answer; its exceptions become the protocol's errors, one text each, never a traceback."""
        try:
            return work()
        except Exception as error:  # the boundary of the process: whatever failed is told to the engine, and logged
            failure = error
        if isinstance(failure, InitError) and request is not None:
            self._abort_init(context, failure, request)
        if isinstance(failure, (ProviderError, InitError)):
            context.abort(grpc.StatusCode.UNKNOWN, str(failure))
        text = self.explain(failure, call, verb)
        if text is None:
            log.error("%s of %s failed", verb, call.urn or call.type, exc_info=failure)
            text = f"{type(failure).__name__}: {failure}"
        return context.abort(grpc.StatusCode.UNKNOWN, text)

    def _abort_init(self, context: grpc.ServicerContext, error: InitError, request: Any) -> NoReturn:
        """Created, but not initialised: the engine keeps the id and repairs the resource at the next update."""
        given = next(
            (getattr(request, name) for name in ("news", "inputs") if name in request.DESCRIPTOR.fields_by_name),
            getattr(request, "properties", struct_pb2.Struct()),
        )
        properties = to_struct(mark_like(from_struct(given), error.outputs))
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=error.resource_id, properties=properties, reasons=[error.reason], inputs=given
            )
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=error.reason, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, error.reason)


__all__ = [
    "Call",
    "Function",
    "InitError",
    "Live",
    "OperationCancelled",
    "ProviderError",
    "ProviderPlugin",
    "Resource",
    "Session",
    "Values",
    "decode_config",
    "get_path",
]
