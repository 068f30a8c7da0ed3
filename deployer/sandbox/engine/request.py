"""From the program's requests to goals."""

from __future__ import annotations

import re
from typing import Any

from . import wire
from .goal import Goal
from .urns import Alias, unique

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HOOKS = ("before_create", "after_create", "before_update", "after_update", "before_delete", "after_delete")


def seconds(text: str) -> float:
    """A duration as Go writes it (`1h30m`), in seconds. Raises ValueError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text.strip():
        raise ValueError(f"time: invalid duration {text!r}")
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return int(total) if float(total).is_integer() else total


def goal_of(request: Any) -> Goal:
    """The goal of a RegisterResource."""
    found: dict[str, set[str]] = {}
    properties = {k: v for k, v in wire.decode(request.object, found).items() if v is not None}
    dependencies = unique(request.dependencies)
    if request.propertyDependencies:
        by_property = {k: unique(d.urns) for k, d in request.propertyDependencies.items()}
    else:  # the program did not say: each property may come from anything the resource depends on
        by_property = {k: list(dependencies) for k in properties}
    for key in properties:
        by_property[key] = unique([*by_property.get(key, ()), *sorted(found.get(key, ()))])
    for named in by_property.values():
        dependencies = unique([*dependencies, *named])
    return Goal(
        type=request.type,
        name=request.name,
        custom=request.custom,
        parent=request.parent,
        properties=properties,
        provider=request.provider,
        dependencies=dependencies,
        property_dependencies=by_property if request.custom or properties else {},
        protect=request.protect if request.HasField("protect") else None,
        retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else None,
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        ignore_changes=list(request.ignoreChanges),
        replace_on_changes=list(request.replaceOnChanges),
        additional_secret_outputs=list(request.additionalSecretOutputs),
        aliases=_aliases(request),
        import_id=request.importId,
        custom_timeouts=_timeouts(request.customTimeouts),
        deleted_with=request.deletedWith,
        replace_with=list(request.replace_with),
        hide_diff=list(request.hideDiffs),
        source_position=_position(request.sourcePosition),
        hooks=_hooks(request.hooks),
    )


def read_goal_of(request: Any) -> Goal:
    """The goal of a ReadResource."""
    return Goal(
        type=request.type,
        name=request.name,
        custom=True,
        parent=request.parent,
        properties=wire.decode(request.properties),
        provider=request.provider,
        dependencies=unique(request.dependencies),
        read_id=request.id,
        additional_secret_outputs=list(request.additionalSecretOutputs),
        source_position=_position(request.sourcePosition),
    )


def _aliases(request: Any) -> list[Alias]:
    out = [Alias(urn=u) for u in request.aliasURNs]
    for alias in request.aliases:
        if alias.HasField("spec"):
            spec = alias.spec
            out.append(
                Alias(
                    "",
                    spec.name,
                    spec.type,
                    spec.stack,
                    spec.project,
                    spec.parentUrn if spec.HasField("parentUrn") else "",
                    spec.noParent if spec.HasField("noParent") else False,
                )
            )
        else:
            out.append(Alias(urn=alias.urn))
    return out


def _timeouts(timeouts: Any) -> dict[str, float]:
    return {k: seconds(text) for k in ("create", "update", "delete", "read") if (text := getattr(timeouts, k))}


def _hooks(binding: Any) -> dict[str, list[str]]:
    return {k: list(names) for k in _HOOKS if (names := getattr(binding, k))}


def _position(position: Any) -> str:
    if not position.uri:
        return ""
    return f"{position.uri.replace('file://', 'project://', 1)}#{position.line}"
