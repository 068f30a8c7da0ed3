"""How a resource's old and new state differ, in a provider's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pulumi.runtime.proto import provider_pb2


@dataclass
class Diff:
    """What a provider says of the way from old to new. `changes`: True, False, or None when it can't tell."""

    changes: bool | None = False
    replace_keys: list[str] = field(default_factory=list)
    changed_keys: list[str] = field(default_factory=list)
    stable_keys: list[str] = field(default_factory=list)
    detailed: dict[str, dict[str, Any]] = field(default_factory=dict)  # path -> {"diffKind", "inputDiff"}
    delete_before_replace: bool = False

    @property
    def replaces(self) -> bool:
        """By its keys, or by a single property below one (`replaceOnChanges` with a nested path names no key)."""
        return bool(self.replace_keys) or any(d["diffKind"].endswith("-replace") for d in self.detailed.values())


_KINDS = ("add", "add-replace", "delete", "delete-replace", "update", "update-replace")


def read(answer: provider_pb2.DiffResponse) -> Diff:
    """The answer of a Diff or DiffConfig."""
    changes = {answer.DIFF_SOME: True, answer.DIFF_NONE: False}.get(answer.changes)
    detailed = {}
    if answer.hasDetailedDiff:
        detailed = {
            path: {"diffKind": _KINDS[d.kind], "inputDiff": d.inputDiff}
            for path, d in sorted(answer.detailedDiff.items())
        }
    return Diff(
        changes, list(answer.replaces), list(answer.diffs), list(answer.stables), detailed, answer.deleteBeforeReplace
    )


def invert(diff: Diff) -> Diff:
    """The same differences seen from the other side."""
    turned = {"add": "delete", "delete": "add", "add-replace": "delete-replace", "delete-replace": "add-replace"}
    detailed = {p: {**d, "diffKind": turned.get(d["diffKind"], d["diffKind"])} for p, d in diff.detailed.items()}
    return Diff(
        diff.changes, diff.replace_keys, diff.changed_keys, diff.stable_keys, detailed, diff.delete_before_replace
    )
