"""What the clouds hold otherwise than the engine's state has it: changed by hand, gone, or unknown to the state.

The engine is asked (`refresh` as a preview: it changes nothing) for what its state knows, the cloud itself for what no
state knows. Only what somebody set counts as changed: what a cloud fills in by itself (times, usage) is no drift.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.engine_events import is_cloud_resource, short_type, urn_name

SECRET = "[secret]"  # noqa: S105 (what the engine prints in a secret's place)
_LONGEST = 60


@dataclass(frozen=True)
class Drift:
    """One resource that is otherwise than it was made. `how`: changed, gone or unknown; `what`: by property."""

    resource: str
    how: str
    what: tuple[tuple[str, str, str], ...] = ()

    @property
    def text(self) -> str:
        """`ec2.Instance site-1-vm: instanceType m7i.large -> m7i.xlarge`."""
        changes = ", ".join(f"{name} {before} -> {after}" for name, before, after in self.what)
        return f"{self.resource}: {changes or self.how}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        changes = [{"property": name, "was": before, "is": after} for name, before, after in self.what]
        return {"resource": self.resource, "how": self.how, "changes": changes}


def unknown(titles: Iterable[str]) -> list[Drift]:
    """What a cloud holds of a participant that no state knows."""
    return [Drift(title, "not in the state") for title in titles]


@dataclass
class DriftCollector:
    """Takes a refresh's events (from another thread) and keeps what differs."""

    found: list[Drift] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Any) -> None:
        """Take one `EngineEvent`."""
        if event.res_outputs_event is None:
            return
        one = drift_of(event.res_outputs_event.metadata)
        if one is not None:
            with self._lock:
                self.found.append(one)


def drift_of(metadata: Any) -> Drift | None:
    """The drift that a refreshed resource's event tells; None where it is as it was made. Pure."""
    if not is_cloud_resource(metadata.type):
        return None
    operation = str(getattr(metadata.op, "value", metadata.op))
    title = f"{short_type(metadata.type)} {urn_name(metadata.urn)}"
    if operation == "delete":
        return Drift(title, "gone")
    if operation != "update" or metadata.old is None or metadata.new is None:
        return None
    made: Mapping[str, Any] = metadata.old.inputs or {}
    before: Mapping[str, Any] = metadata.old.outputs or {}
    after: Mapping[str, Any] = metadata.new.outputs or {}
    names = [name for name in made if not name.startswith("__") and before.get(name) != after.get(name)]
    changes = tuple((name, *_different(before.get(name), after.get(name))) for name in sorted(names))
    return Drift(title, "changed", changes) if changes else None


def _different(before: Any, after: Any) -> tuple[str, str]:
    """Two values as short texts that show where they differ: of mappings, only the keys that do. Pure."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        before = {key: before[key] for key in keys if key in before}
        after = {key: after[key] for key in keys if key in after}
    return _short(before), _short(after)


def _short(value: Any) -> str:
    if value is None or value == {}:
        return "nothing"
    text = ", ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
