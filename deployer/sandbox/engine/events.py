"""The engine's events: what the Automation API gives to `on_event`, in its JSON form.

Secrets are blinded, a delete has no `new`, a create no `old`, and the engine's own default providers are in the
stream but not in the counts. Listeners (the event log, the display) get each event in order, from whatever thread it
comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .reading import Refresh
from .state import Resource
from .steps import Step
from .values import to_event

Event = dict[str, Any]
Listener = Callable[[Event], None]


class Stream:
    """The ordered stream of one command's events. After `close` nothing is added any more."""

    def __init__(self, *, planning: bool) -> None:
        self.planning = planning
        self.listeners: list[Listener] = []
        self.steps = 0
        self.changes: dict[str, int] = {}
        self.corrupt = False
        self._lock = threading.RLock()
        self._sequence = 0
        self._closed = False
        self._started = time.monotonic()

    def emit(self, kind: str, body: dict[str, Any]) -> None:
        with self._lock:
            if self._closed:
                return
            event = {"sequence": self._sequence, "timestamp": int(time.time()), kind: body}
            self._sequence += 1
            for listener in self.listeners:
                listener(event)

    # -- the frame -------------------------------------------------------------------------------------------------
    def prelude(self, config: dict[str, str]) -> None:
        self.emit("preludeEvent", {"config": config})

    def summary(self) -> None:
        body = {
            "maybeCorrupt": self.corrupt,
            "durationSeconds": round(time.monotonic() - self._started),
            "resourceChanges": dict(sorted(self.changes.items())),
            "PolicyPacks": {},
        }
        self.emit("summaryEvent", body)

    def close(self) -> None:
        """The last event: who watches stops watching."""
        with self._lock:
            self.emit("cancelEvent", {})
            self._closed = True

    def stdout(self, message: str) -> None:
        self.emit("stdoutEvent", {"message": message, "color": "never"})

    def diagnostic(
        self, severity: str, message: str, urn: str = "", *, ephemeral: bool = False, stream: int = 0
    ) -> None:
        body: dict[str, Any] = {
            "prefix": f"{severity}: ",
            "message": message.rstrip("\n") + "\n" if not message.endswith("\n") else message,
            "color": "never",
            "severity": severity,
        }
        if urn:
            body["urn"] = urn
        if ephemeral:
            body["ephemeral"] = True
        if stream:
            body["streamId"] = stream
        self.emit("diagnosticEvent", body)

    # -- steps -----------------------------------------------------------------------------------------------------
    def begins(self, step: Step) -> None:
        self.emit("resourcePreEvent", self._about(step, step.op))

    def ends(self, step: Step, *, show: bool) -> None:
        """A step that was done; it is counted, and shown unless its outputs come later (a component's)."""
        op, counted = step.op, step.logical
        if isinstance(step, Refresh) and step.refresh_only:
            op, counted = step.result_op, True
        if counted and not step.internal:
            with self._lock:
                self.steps += 1
                self.changes[op] = self.changes.get(op, 0) + 1
        if show:
            self.emit("resOutputsEvent", self._about(step, op))

    def outputs(self, step: Step) -> None:
        """A component's outputs, registered at its end."""
        self.emit("resOutputsEvent", self._about(step, step.op))

    def failed(self, step: Step, status: int) -> None:
        self.emit("resOpFailedEvent", {**self._about(step, step.op), "status": status, "steps": self.steps})

    def _about(self, step: Step, op: str) -> dict[str, Any]:
        diff = step.diff
        metadata: dict[str, Any] = {
            "op": op,
            "urn": step.urn,
            "type": step.resource.type,
            "provider": step.resource.provider,
            "old": _state(step.old),
            "new": _state(step.new),
            "detailedDiff": diff.detailed or None,
        }
        if diff.replace_keys:
            metadata["keys"] = diff.replace_keys
        if diff.changed_keys:
            metadata["diffs"] = diff.changed_keys
        if step.logical:
            metadata["logical"] = True
        body: dict[str, Any] = {"metadata": metadata}
        if self.planning:
            body["planning"] = True
        return body


def _state(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    out: dict[str, Any] = {
        "type": resource.type,
        "urn": resource.urn,
        "id": resource.id,
        "parent": resource.parent,
        "inputs": to_event(resource.inputs),
        "outputs": to_event(resource.outputs),
        "provider": resource.provider,
    }
    flags = {
        "custom": resource.custom,
        "delete": resource.delete,
        "protect": resource.protect,
        "retainOnDelete": resource.retain_on_delete,
        "initErrors": resource.init_errors,
    }
    out.update({k: v for k, v in flags.items() if v})
    return out
