"""The resource monitor: the gRPC server that the running program registers its resources with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import provider_pb2, resource_pb2, resource_pb2_grpc

from . import urns, wire
from .defaults import DefaultProviders
from .functions import Builtins
from .goal import Goal, Registration, Result
from .hooks import Hook, Hooks
from .problems import ProviderError
from .provider import INTERNAL, details_of
from .registry import Registry
from .request import goal_of, read_goal_of
from .transforms import Transforms
from .values import Properties, has_unknown

FEATURES = {
    "secrets": resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    "resourceReferences": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    "outputValues": resource_pb2.RESOURCE_MONITOR_FEATURE_OUTPUT_VALUES,
    "aliasSpecs": resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    "deletedWith": resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    "transforms": resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
    "invokeTransforms": resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_TRANSFORMS,
    "resourceHooks": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
}


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """`register` hands a registration to the deployment, `outputs` a component's outputs, `signal` the end."""

    def __init__(
        self,
        info: resource_pb2.DeploymentInfo,
        registry: Registry,
        defaults: DefaultProviders,
        transforms: Transforms,
        hooks: Hooks,
        builtins: Builtins,
        register: Callable[[Registration], None],
        outputs: Callable[[str, Properties], None],
        signal: Callable[[], None],
    ) -> None:
        info.supportedFeatures.extend(FEATURES.values())
        self._info, self._registry, self._defaults = info, registry, defaults
        self._transforms, self._hooks, self._builtins = transforms, hooks, builtins
        self._register, self._outputs, self._signal = register, outputs, signal
        self._over = threading.Event()

    def shut_down(self) -> None:
        """Lets go of the program when the deployment has done all it will do."""
        self._over.set()

    # -- the frame -------------------------------------------------------------------------------------------------
    def GetDeploymentInfo(self, request: Any, context: Any) -> resource_pb2.DeploymentInfo:
        return self._info

    def SupportsFeature(self, request: Any, context: Any) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in FEATURES)

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._signal()
        self._over.wait()
        return empty_pb2.Empty()

    def RegisterStackTransform(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._transforms.stack.append(request)
        return empty_pb2.Empty()

    def RegisterStackInvokeTransform(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._transforms.invokes.append(request)
        return empty_pb2.Empty()

    def RegisterResourceHook(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._hooks.registered[request.name] = Hook(request.callback, request.on_dry_run, request.ignore_errors)
        return empty_pb2.Empty()

    # -- resources -------------------------------------------------------------------------------------------------
    def RegisterResource(self, request: Any, context: Any) -> resource_pb2.RegisterResourceResponse:
        if request.remote:
            _abort(context, f"remote component resources are not supported by the sandbox's engine: {request.type}")
        try:
            self._transforms.apply(request)
        except grpc.RpcError as error:
            _abort(context, details_of(error))
        goal = goal_of(request)
        self._choose_provider(goal, request, context)
        result = self._answer(goal, context)
        state = result.state
        outputs = state.outputs if goal.custom else {}
        answer = resource_pb2.RegisterResourceResponse(
            urn=state.urn,
            id="" if state.id == urns.UNKNOWN_ID else state.id,
            stable=result.all_stable,
            stables=result.stables,
            object=wire.encode(outputs, secrets=request.acceptSecrets, resources=request.acceptResources),
            result=resource_pb2.FAIL if result.failed else resource_pb2.SUCCESS,
            unknown=result.unknown,
        )
        if urns.is_provider_type(goal.type):
            answer.id = state.id  # a provider's reference needs the id, even while it is not known
        for key, dependencies in goal.property_dependencies.items():
            answer.propertyDependencies[key].urns.extend(dependencies)
        return answer

    def ReadResource(self, request: Any, context: Any) -> resource_pb2.ReadResourceResponse:
        goal = read_goal_of(request)
        self._choose_provider(goal, request, context)
        state = self._answer(goal, context).state
        outputs = wire.encode(state.outputs, secrets=request.acceptSecrets, resources=request.acceptResources)
        return resource_pb2.ReadResourceResponse(urn=state.urn, id=state.id, properties=outputs)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._outputs(request.urn, wire.decode(request.outputs))
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> resource_pb2.ResourceInvokeResponse:
        try:
            self._transforms.apply_invoke(request)
            args = wire.decode(request.args)
            if request.tok.startswith("pulumi:pulumi:"):
                found = self._builtins.invoke(request.tok, args)
                return _returned(wire.encode(found, secrets=True))
            ref = request.provider or self._defaults.get(
                urns.package_of(request.tok), request.version, request.pluginDownloadURL
            )
            provider = self._registry.get(ref)
            if self._info.dryRun and (provider.unconfigured or has_unknown(args)):
                return resource_pb2.ResourceInvokeResponse(unknown=True)
            returned, failures = provider.invoke(request.tok, args, preview=self._info.dryRun)
        except ProviderError as error:
            _abort(context, f"invocation of {request.tok} returned an error: {error}")
        out = _returned(returned)
        for failure in failures:
            out.failures.append(provider_pb2.CheckFailure(property=failure.property, reason=failure.reason))
        return out

    # -- help ------------------------------------------------------------------------------------------------------
    def _choose_provider(self, goal: Goal, request: Any, context: Any) -> None:
        """Which provider serves the resource: the one named, else the package's default; a provider's version is an
        input.
        """
        if urns.is_provider_type(goal.type):
            if request.version:
                goal.properties["version"] = request.version
            if request.pluginDownloadURL:
                goal.properties.setdefault(INTERNAL, {})["pluginDownloadURL"] = request.pluginDownloadURL
            for key in goal.properties:
                goal.property_dependencies.setdefault(key, [])
            goal.property_dependencies.pop(INTERNAL, None)
        elif goal.custom and not goal.provider:
            try:
                goal.provider = self._defaults.get(
                    urns.package_of(goal.type), request.version, request.pluginDownloadURL
                )
            except ProviderError as error:
                _abort(context, str(error))
            if goal.provider == "":
                context.abort(
                    grpc.StatusCode.UNAVAILABLE, "resource monitor shut down while waiting on step's done channel"
                )

    def _answer(self, goal: Goal, context: Any) -> Result:
        registration = Registration(goal)
        self._register(registration)
        result = registration.wait()
        if result is None:
            context.abort(
                grpc.StatusCode.UNAVAILABLE, "resource monitor shut down while waiting on step's done channel"
            )
        assert result is not None
        return result


def _returned(values: Struct) -> resource_pb2.ResourceInvokeResponse:
    out = resource_pb2.ResourceInvokeResponse()
    getattr(out, "return").CopyFrom(values)  # the field has a keyword's name
    return out


def _abort(context: Any, message: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError  # abort has raised
