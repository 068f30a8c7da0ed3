"""Update plans: what a preview saw, saved; an update may be held to it (`preview --save-plan`, `up --plan`).

A plan says for each resource how its inputs differ from the state and which operations follow. An update by the plan
may do less, never anything else: an update that the plan has may turn out to change nothing, a replacement may become
an update.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .problems import CommandFailed, Refused
from .state import Resource, manifest
from .steps import Step
from .values import Properties, Unknown, equal, from_checkpoint, has_unknown, plain, to_checkpoint

_MISSING = object()
_SOFTER = {
    "update": {"same", "update"},
    "replace": {"same", "update", "replace"},
    "create-replacement": {"same", "update", "create-replacement"},
    "delete-replaced": {"same", "update", "delete-replaced"},
}


class Plan:
    """Without a plan: everything is allowed and nothing is kept."""

    def check_goal(self, new: Resource, old: Resource | None) -> None:
        """Raises Refused when the inputs are not those of the plan."""

    def check_step(self, step: Step) -> None:
        """Raises Refused when the plan does not have the step."""

    def unseen(self) -> list[str]:
        """The URNs whose planned operations were never tried."""
        return []


class Recorded(Plan):
    """Writes down what a preview sees."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}

    def check_goal(self, new: Resource, old: Resource | None) -> None:
        inputs = _diff(old.inputs if old else {}, new.inputs)
        self.resources.setdefault(new.urn, {"steps": []})["goal"] = {
            "type": new.type,
            "custom": new.custom,
            "protect": new.protect,
            "parent": new.parent,
            "inputDiff": inputs,
        }

    def check_step(self, step: Step) -> None:
        self.resources.setdefault(step.urn, {"steps": []})["steps"].append(step.op)

    def save(self, path: Path, encrypt: Callable[[str], str]) -> None:
        out = {}
        for urn, planned in self.resources.items():
            out[urn] = {"steps": planned["steps"]}
            if goal := planned.get("goal"):
                out[urn]["goal"] = {**goal, "inputDiff": to_checkpoint(goal["inputDiff"], encrypt)}
        text = json.dumps({"manifest": manifest(), "resourcePlans": out}, indent=4)
        path.write_text(text + "\n")


class Constraint(Plan):
    """Holds an update to a saved plan."""

    def __init__(self, resources: dict[str, dict[str, Any]]) -> None:
        self._resources = resources
        self._left = {urn: list(planned.get("steps") or []) for urn, planned in resources.items()}
        self._tried: set[str] = set()

    @classmethod
    def load(cls, path: Path, decrypt: Callable[[str], str]) -> Constraint:
        try:
            data = json.loads(path.read_text())
            plans: dict[str, Any] = data["resourcePlans"]
        except (OSError, ValueError, KeyError) as error:
            raise CommandFailed(f"could not read the plan {path}: {error}") from None
        for planned in plans.values():
            if goal := planned.get("goal"):
                goal["inputDiff"] = from_checkpoint(goal["inputDiff"], decrypt)
        return cls(plans)

    def check_goal(self, new: Resource, old: Resource | None) -> None:
        planned = (self._resources.get(new.urn) or {}).get("goal")
        if planned is None:
            if _empty(_diff(old.inputs if old else {}, new.inputs)) and old is not None:
                return
            raise Refused(f"resource {new.urn} violates plan: resource is not in the plan", new.urn)
        if bool(planned.get("protect")) != new.protect:
            was, now = str(bool(planned.get("protect"))).lower(), str(new.protect).lower()
            raise Refused(
                f"resource {new.urn} violates plan: protect changed (expected {was}, got {now})",
                new.urn,
            )
        found = _violations(planned["inputDiff"], _diff(old.inputs if old else {}, new.inputs))
        if found:
            raise Refused(f"resource {new.urn} violates plan: properties changed: {', '.join(found)}", new.urn)

    def check_step(self, step: Step) -> None:
        left = self._left.get(step.urn)
        self._tried.add(step.urn)
        if left is None:
            if step.op != "same":
                raise Refused(
                    f"{step.op} is not allowed by the plan: no steps were expected for this resource", step.urn
                )
            return
        if not left:
            raise Refused(
                f"{step.op} is not allowed by the plan: no more steps were expected for this resource", step.urn
            )
        wanted = left.pop(0)
        if step.op not in _SOFTER.get(wanted, {wanted}):
            raise Refused(f"{step.op} is not allowed by the plan: this resource is constrained to {wanted}", step.urn)

    def unseen(self) -> list[str]:
        return sorted(u for u, steps in self._left.items() if steps and u not in self._tried and set(steps) != {"same"})


def _diff(old: Properties, new: Properties) -> dict[str, Any]:
    return {
        "adds": {k: v for k, v in new.items() if k not in old},
        "deletes": [k for k in old if k not in new],
        "updates": {k: v for k, v in new.items() if k in old and (has_unknown(v) or not equal(old[k], v))},
    }


def _empty(diff: dict[str, Any]) -> bool:
    return not (diff["adds"] or diff["deletes"] or diff["updates"])


def _operation(diff: dict[str, Any], key: str) -> tuple[str, Any]:
    if key in diff["adds"]:
        return "+", diff["adds"][key]
    if key in diff["updates"]:
        return "~", diff["updates"][key]
    return ("-", _MISSING) if key in diff["deletes"] else ("=", _MISSING)


def _violations(planned: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """`~~size[{4}!={6}]`: what the plan does with the property, what is done, and the values."""
    keys = {k for diff in (planned, actual) for part in diff.values() for k in part}
    out = []
    for key in sorted(keys):
        (wanted, value), (done, got) = _operation(planned, key), _operation(actual, key)
        if wanted == "~" and done == "=" and has_unknown(value):
            continue  # it turned out to be what it was
        if wanted == done and (value is _MISSING or _covers(value, got)):
            continue
        shown = [f"{{{_shown(v)}}}" for v in (value, got) if v is not _MISSING]
        out.append(f"{wanted}{done}{key}[{'!='.join(shown)}]")
    return out


def _covers(planned: Any, actual: Any) -> bool:
    """Whether the actual value is the planned one; what was unknown may be anything."""
    planned, actual = plain(planned), plain(actual)
    if isinstance(planned, Unknown):
        return True
    if isinstance(planned, dict) and isinstance(actual, dict):
        return planned.keys() == actual.keys() and all(_covers(v, actual[k]) for k, v in planned.items())
    if isinstance(planned, list) and isinstance(actual, list):
        return len(planned) == len(actual) and all(map(_covers, planned, actual))
    return equal(planned, actual)


def _shown(value: Any) -> str:
    value = plain(value)
    return "computed" if isinstance(value, Unknown) else str(value)
