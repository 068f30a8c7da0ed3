"""What the engine says while it works, read into steps and failures. Pure: no engine, no cloud, no screen.

The engine tells of each resource before it touches it (`resource_pre_event`), when it is done (`res_outputs_event`)
or has failed (`res_op_failed_event`), and of causes as diagnostics with the resource's URN.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["create", "update", "replace", "delete", "import"]

ACTIONS: dict[str, Action] = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "discard-replaced": "replace",
    "import": "import",
    "import-replacement": "replace",
}

_COLOUR = re.compile(r"<\{%.*?%\}>")


@dataclass(frozen=True)
class Step:
    """One thing that the engine wants to do or did: to which resource, what, and which properties made it so."""

    urn: str
    type: str
    name: str
    action: Action
    reasons: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people: `ec2.Instance site-1-vm`."""
        return f"{short_type(self.type)} {self.name}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "urn": self.urn,
            "type": self.type,
            "name": self.name,
            "action": self.action,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Diagnostic:
    """An error that the engine told: the resource it concerns (empty: none), and the text."""

    urn: str
    message: str

    @property
    def title(self) -> str:
        """For people: `ec2.Instance site-1-vm`, or nothing."""
        return f"{short_type(urn_type(self.urn))} {urn_name(self.urn)}" if self.urn else ""


def urn_name(urn: str) -> str:
    """The logical name at the end of a URN."""
    return urn.rpartition("::")[2]


def urn_type(urn: str) -> str:
    """The resource's own type in a URN (without its parents' types)."""
    parts = urn.split("::")
    return parts[2].rpartition("$")[2] if len(parts) > 3 else ""


def short_type(token: str) -> str:
    """`aws:ec2/instance:Instance` becomes `ec2.Instance`, `azure-native:network:Subnet` becomes `network.Subnet`."""
    parts = token.split(":")
    if len(parts) != 3:
        return token
    return f"{parts[1].partition('/')[0]}.{parts[2]}"


def is_cloud_resource(token: str) -> bool:
    """Whether something of this type lies in a cloud (not the stack itself, a provider or a component)."""
    return token.startswith(("aws:", "azure-native:", "toy:"))


def step_of(metadata: Any) -> Step | None:
    """The step in an event's metadata; None for what changes nothing or lies in no cloud."""
    operation = getattr(metadata.op, "value", metadata.op)
    action = ACTIONS.get(str(operation))
    if action is None or not is_cloud_resource(metadata.type):
        return None
    reasons = metadata.detailed_diff or {}
    names = sorted(reasons) if isinstance(reasons, Mapping) else []
    return Step(
        urn=metadata.urn,
        type=metadata.type,
        name=urn_name(metadata.urn),
        action=action,
        reasons=tuple(names or sorted(metadata.diffs or ())),
    )


def merged(steps: Iterable[Step]) -> list[Step]:
    """One step for each resource: a replacement is told as three, and a delete beside it belongs to it."""
    found: dict[str, Step] = {}
    for step in steps:
        before = found.get(step.urn)
        if before is None:
            found[step.urn] = step
        elif "replace" in (before.action, step.action):
            found[step.urn] = Step(
                step.urn, step.type, step.name, "replace", tuple(sorted({*before.reasons, *step.reasons}))
            )
        elif before.action == "delete":
            found[step.urn] = step
    return list(found.values())


@dataclass
class Collector:
    """Takes the engine's events (from another thread) and keeps what matters.

    Args:
        on_step: called with `(state, step)`, state being `start`, `done` or `failed`, while the engine works.
    """

    on_step: Callable[[str, Step], None] = lambda state, step: None
    planned: list[Step] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    failed: list[Step] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Any) -> None:
        """Take one `EngineEvent`."""
        if event.resource_pre_event is not None:
            self._take(event.resource_pre_event.metadata, self.planned, "start")
        elif event.res_outputs_event is not None:
            self._take(event.res_outputs_event.metadata, self.done, "done")
        elif event.res_op_failed_event is not None:
            self._take(event.res_op_failed_event.metadata, self.failed, "failed")
        elif event.diagnostic_event is not None:
            self._diagnose(event.diagnostic_event)

    def _take(self, metadata: Any, into: list[Step], state: str) -> None:
        step = step_of(metadata)
        if step is None:
            return
        with self._lock:
            into.append(step)
        self.on_step(state, step)

    def _diagnose(self, event: Any) -> None:
        message = _COLOUR.sub("", event.message or "").strip()
        with self._lock:
            if event.severity == "error" and message not in {"update failed", "preview failed", "destroy failed"}:
                self.diagnostics.append(Diagnostic(event.urn or "", message))
            elif event.severity == "warning":
                self.warnings.append(message)

    @property
    def steps(self) -> list[Step]:
        """What was planned (or begun), one step a resource."""
        with self._lock:
            return merged(self.planned)

    @property
    def changed(self) -> list[Step]:
        """What was really done, one step a resource."""
        with self._lock:
            return merged(self.done)
