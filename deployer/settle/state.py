"""Reading and editing a stack's exported state. Pure: texts and dictionaries in, dictionaries out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from deployer.settle.model import Deployment, Found

_CLOUDS = ("aws:", "azure-native:")


def name_of(urn: str) -> str:
    """The logical name at the end of a URN."""
    return urn.rsplit("::", 1)[-1]


def cloud_resources(deployment: Deployment | None) -> list[Mapping[str, Any]]:
    """The entries of the state that stand for something in a cloud: no stack, no components, no providers."""
    entries: list[Mapping[str, Any]] = (deployment or {}).get("resources") or []
    return [e for e in entries if e.get("custom") and str(e.get("type", "")).startswith(_CLOUDS) and e.get("id")]


def state_key(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The key by which the same thing is told in the cloud (`Found.key`)."""
    kind, known = str(entry["type"]), str(entry["id"])
    if kind.startswith("azure-native:"):
        return kind, known.lower()
    values = {**(entry.get("inputs") or {}), **(entry.get("outputs") or {})}
    if kind == "aws:ec2/route:Route":
        return kind, route_id(str(values.get("routeTableId")), str(values.get("destinationCidrBlock")))
    if kind == "aws:ec2/volumeAttachment:VolumeAttachment":
        parts = (values.get("deviceName"), values.get("volumeId"), values.get("instanceId"))
        return kind, attachment_id(*(str(part) for part in parts))
    return kind, known


def route_id(table: str, destination: str) -> str:
    """How a route is told: EC2 gives it no ID."""
    return f"{table}_{destination}"


def attachment_id(device: str, volume: str, instance: str) -> str:
    """How a volume's attachment is told: EC2 gives it no ID."""
    return f"{device}:{volume}:{instance}"


def orphans(found: Iterable[Found], deployment: Deployment | None) -> tuple[Found, ...]:
    """What is in the cloud and not in the state. Pure.

    What goes with something that exists (an OS disk, an attachment) is no orphan of its own.
    """
    things = list(found)
    existing = {thing.id.lower() for thing in things}
    # Marked so, the engine has deleted it already, to replace it: what has its ID now (on Azure, where names are fixed)
    # is what a killed create made.
    entries = [e for e in cloud_resources(deployment) if not e.get("pendingReplacement")]
    known = {state_key(entry) for entry in entries}
    return tuple(t for t in things if t.key not in known and t.goes_with.lower() not in existing)


def pending(deployment: Deployment | None) -> list[Mapping[str, Any]]:
    """The operations that a crash left open: `{"type": "creating", "resource": {…}}` and so on."""
    return list((deployment or {}).get("pending_operations") or [])


def edited(deployment: Deployment | None, drop: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A copy without pending operations and without the entries `drop`, each told by URN and ID.

    With an entry go those that were deleted with it and those that only wait for their own deletion. An entry on which
    something else still depends stays, as a state with a hole is refused by the engine: its URN is returned, and a
    refresh must take it out.
    """
    result: dict[str, Any] = copy.deepcopy(dict(deployment or {}))
    result.pop("pending_operations", None)
    entries: list[dict[str, Any]] = result.get("resources") or []
    held: list[str] = []
    for urn, known in drop:
        gone = [e for e in entries if e["urn"] == urn and e.get("id", "") == known]
        if not gone:
            continue
        rest = [e for e in entries if not any(e is g for g in gone)]
        if not any(e["urn"] == urn for e in rest):
            rest = _without_followers(rest, urn)
            if any(_refers(e, urn) for e in rest):
                held.append(urn)
                continue
        entries = rest
    if "resources" in result:
        result["resources"] = entries
    return result, tuple(held)


def _without_followers(entries: list[dict[str, Any]], urn: str) -> list[dict[str, Any]]:
    """Take out what vanished with `urn`: all that was to be deleted with it, or is marked as deleted already."""
    gone = {urn}
    rest = entries
    while True:
        follow = [
            e
            for e in rest
            if e.get("deletedWith") in gone
            or ((e.get("delete") or e.get("pendingReplacement")) and any(_refers(e, g) for g in gone))
        ]
        if not follow:
            return rest
        gone |= {e["urn"] for e in follow}
        rest = [e for e in rest if not any(e is f for f in follow)]


def _refers(entry: Mapping[str, Any], urn: str) -> bool:
    if urn in (entry.get("parent"), entry.get("deletedWith")) or urn in (entry.get("dependencies") or []):
        return True
    if str(entry.get("provider", "")).startswith(f"{urn}::"):
        return True
    return any(urn in urns for urns in (entry.get("propertyDependencies") or {}).values() if urns)
