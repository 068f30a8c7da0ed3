"""Resource hooks: callbacks of the program before and after a resource is created, updated or deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from pulumi.runtime.proto import callback_pb2, resource_pb2

from . import urns, wire
from .callbacks import Callbacks
from .problems import ProviderError
from .provider import details_of
from .steps import Create, Delete, Step, Update


@dataclass
class Hook:
    callback: callback_pb2.Callback
    on_preview: bool
    ignore_errors: bool


class Hooks:
    """The hooks that the program has registered, by name, and the calling of them."""

    def __init__(self, callbacks: Callbacks, warn: Callable[[str, str], None], *, preview: bool) -> None:
        self._callbacks, self._warn, self._preview = callbacks, warn, preview
        self.registered: dict[str, Hook] = {}

    def before(self, step: Step) -> None:
        self._call("before", step)

    def after(self, step: Step) -> None:
        self._call("after", step)

    def _call(self, moment: str, step: Step) -> None:
        verb = {Create: "create", Update: "update", Delete: "delete"}.get(type(step))
        if verb is None:
            return
        for name in step.resource.hooks.get(f"{moment}_{verb}", ()):
            hook = self.registered.get(name)
            if hook is None and verb == "delete":  # the program that has it is not running, as in a destroy
                self._warn(step.urn, f"resource hook {name} was not called: the program does not run")
                continue
            if hook is None:
                raise ProviderError(f"resource hook {name} was not registered")
            if self._preview and not hook.on_preview:
                continue
            try:
                error = self._ask(hook, step)
            except grpc.RpcError as problem:
                error = details_of(problem)
            if error and moment == "before" and not hook.ignore_errors:
                raise ProviderError(f'{moment} hook "{name}" failed: {error}')

    def _ask(self, hook: Hook, step: Step) -> str:
        old, new = step.old, step.new
        request = resource_pb2.ResourceHookRequest(
            urn=step.urn,
            id=step.resource.id,
            name=urns.name_of(step.urn),
            type=step.resource.type,
            new_inputs=wire.encode(new.inputs, secrets=True) if new else None,
            new_outputs=wire.encode(new.outputs, secrets=True) if new else None,
            old_inputs=wire.encode(old.inputs, secrets=True) if old else None,
            old_outputs=wire.encode(old.outputs, secrets=True) if old else None,
        )
        answer = self._callbacks.invoke(hook.callback, request, resource_pb2.ResourceHookResponse)
        return str(answer.error)
