"""Transforms: callbacks of the program that may change a resource's properties and options before it is registered."""

from __future__ import annotations

from typing import Any

from pulumi.runtime.proto import callback_pb2, resource_pb2

from . import urns
from .callbacks import Callbacks

# option of a transform -> field of the registration; the others have the same name on both sides
_LISTS = {
    "depends_on": "dependencies",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "additional_secret_outputs": "additionalSecretOutputs",
    "hide_diff": "hideDiffs",
    "replace_with": "replace_with",
}
_TEXTS = {
    "version": "version",
    "provider": "provider",
    "plugin_download_url": "pluginDownloadURL",
    "deleted_with": "deletedWith",
    "import": "importId",
}


class Transforms:
    """The transforms of the stack and of each resource, which its children take over."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self.stack: list[callback_pb2.Callback] = []
        self.invokes: list[callback_pb2.Callback] = []
        self._by_urn: dict[str, list[callback_pb2.Callback]] = {}

    def apply(self, request: Any) -> None:
        """Changes the request as its own transforms say, then its ancestors', then the stack's."""
        if request.type == urns.STACK_TYPE:
            return
        own = [*request.transforms, *self._by_urn.get(self._key(request.parent), ())]
        self._by_urn[self._key_of(request)] = own
        for callback in (*own, *self.stack):
            asked = resource_pb2.TransformRequest(
                type=request.type,
                name=request.name,
                custom=request.custom,
                parent=request.parent,
                properties=request.object,
                options=_options(request),
            )
            answer = self._callbacks.invoke(callback, asked, resource_pb2.TransformResponse)
            if answer.HasField("properties"):
                request.object.CopyFrom(answer.properties)
            if answer.HasField("options"):
                _take_over(request, answer.options)

    def apply_invoke(self, request: Any) -> None:
        for callback in self.invokes:
            asked = resource_pb2.TransformInvokeRequest(
                token=request.tok,
                args=request.args,
                options=resource_pb2.TransformInvokeOptions(
                    provider=request.provider, plugin_download_url=request.pluginDownloadURL, version=request.version
                ),
            )
            answer = self._callbacks.invoke(callback, asked, resource_pb2.TransformInvokeResponse)
            if answer.HasField("args"):
                request.args.CopyFrom(answer.args)
            if answer.HasField("options"):
                request.provider, request.version = answer.options.provider, answer.options.version
                request.pluginDownloadURL = answer.options.plugin_download_url

    @staticmethod
    def _key(parent: str) -> str:
        """What a child knows its parent by. Stack and project play no part: they are the same for all."""
        return "::".join(parent.split("::", 3)[2:])

    def _key_of(self, request: Any) -> str:
        return self._key(urns.make("any", "any", request.parent, request.type, request.name))


def _options(request: Any) -> resource_pb2.TransformResourceOptions:
    out = resource_pb2.TransformResourceOptions(
        aliases=request.aliases,
        custom_timeouts=request.customTimeouts,
        providers=request.providers,
        hooks=request.hooks,
    )
    for option, field in _LISTS.items():
        getattr(out, option).extend(getattr(request, field))
    for option, field in _TEXTS.items():
        setattr(out, option, getattr(request, field))
    if request.HasField("protect"):
        out.protect = request.protect
    if request.HasField("retainOnDelete"):
        out.retain_on_delete = request.retainOnDelete
    if request.deleteBeforeReplaceDefined:
        out.delete_before_replace = request.deleteBeforeReplace
    if request.HasField("replacement_trigger"):
        out.replacement_trigger.CopyFrom(request.replacement_trigger)
    return out


def _take_over(request: Any, options: resource_pb2.TransformResourceOptions) -> None:
    for option, field in _LISTS.items():
        del getattr(request, field)[:]
        getattr(request, field).extend(getattr(options, option))
    for option, field in _TEXTS.items():
        setattr(request, field, getattr(options, option))
    del request.aliases[:]
    request.aliases.extend(options.aliases)
    request.customTimeouts.CopyFrom(options.custom_timeouts)
    request.hooks.CopyFrom(options.hooks)
    request.ClearField("protect")
    if options.HasField("protect"):
        request.protect = options.protect
    request.ClearField("retainOnDelete")
    if options.HasField("retain_on_delete"):
        request.retainOnDelete = options.retain_on_delete
    request.deleteBeforeReplaceDefined = options.HasField("delete_before_replace")
    request.deleteBeforeReplace = options.delete_before_replace
