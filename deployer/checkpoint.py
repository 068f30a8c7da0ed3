"""What a stack's checkpoint says of a participant: where it lies, its address, its machine's end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.engine import cloud_resources
from deployer.expiry_units import moment
from deployer.plan import VM_TYPES
from stacks.names import tag_key

SHUTDOWN = "azure-native:devtestlab:GlobalSchedule"


def place_of(state: Mapping[str, Any] | None) -> tuple[str, str | None] | None:
    """Cloud and region in which a checkpoint's resources lie; None when it holds none."""
    found = cloud_resources(state)
    if not found:
        return None
    cloud = "aws" if any(entry["type"].startswith("aws:") for entry in found) else "azure"
    everything = [*stack_outputs(state), *(entry.get("outputs") or {} for entry in found)]
    regions = (outputs.get("region") or outputs.get("location") for outputs in everything)
    return cloud, next((region for region in regions if isinstance(region, str)), None)


def stack_outputs(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The stack's own outputs in a checkpoint (one mapping, or none)."""
    found = (state or {}).get("resources") or []
    return [entry.get("outputs") or {} for entry in found if entry["type"] == "pulumi:pulumi:Stack"]


def _machine_in(state: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return next((entry for entry in cloud_resources(state) if entry["type"] in VM_TYPES), {})


def tells_its_machine(state: Mapping[str, Any] | None) -> bool:
    """Whether the stack's outputs are of the machine that it holds, and of its daily shutdown.

    An `up` that was cut off right after one was made, replaced or deleted has kept that, and the outputs from before.
    """
    known = (_machine_in(state).get("id"), _shutdown_in(state))
    return any((outputs.get("vm_id"), outputs.get("deallocate_at")) == known for outputs in stack_outputs(state))


def _shutdown_in(state: Mapping[str, Any] | None) -> str | None:
    """When Azure's daily shutdown in a checkpoint deallocates the machine, `HHMM`; None: there is none."""
    schedule = next((entry for entry in cloud_resources(state) if entry["type"] == SHUTDOWN), {})
    return ((schedule.get("inputs") or {}).get("dailyRecurrence") or {}).get("time")


def end_in(state: Mapping[str, Any] | None) -> float | None:
    """When the machine in a checkpoint ends itself, by the tag that it was last given; None: never, or no machine."""
    tags = (_machine_in(state).get("inputs") or {}).get("tags") or {}
    stamped = (tags.get(tag_key(cloud, "expires-at")) for cloud in ("aws", "azure"))
    return next((moment(text) for text in stamped if isinstance(text, str)), None)


def address_in(state: Mapping[str, Any] | None) -> str | None:
    """The public address that a checkpoint exports."""
    addresses = (outputs.get("public_ip") for outputs in stack_outputs(state))
    return next((address for address in addresses if isinstance(address, str)), None)
