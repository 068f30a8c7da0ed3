"""What a stack's checkpoint says of a participant: where it lies, its address, its machine's end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.expiry_units import moment
from deployer.plan import VM_TYPES
from stacks.images import Image
from stacks.names import tag_key

_MACHINE_TYPES = VM_TYPES | {"aws:ec2/keyPair:KeyPair"}
SHUTDOWN = "azure-native:devtestlab:GlobalSchedule"
ROLE = "azure-native:authorization:RoleAssignment"


def pending_operations(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What a killed engine was in the middle of."""
    return list((state or {}).get("pending_operations") or [])


def cloud_resources(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The resources of a checkpoint that lie in a cloud (not the stack, providers and components)."""
    found = (state or {}).get("resources") or []
    return [entry for entry in found if entry.get("custom") and not entry["type"].startswith("pulumi:")]


def stack_outputs(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The stack's own outputs in a checkpoint (one mapping, or none)."""
    found = (state or {}).get("resources") or []
    return [entry.get("outputs") or {} for entry in found if entry["type"] == "pulumi:pulumi:Stack"]


def place_of(state: Mapping[str, Any] | None) -> tuple[str, str | None] | None:
    """Cloud and region in which a checkpoint's resources lie; None when it holds none."""
    found = cloud_resources(state)
    if not found:
        return None
    cloud = "aws" if any(entry["type"].startswith("aws:") for entry in found) else "azure"
    everything = [*stack_outputs(state), *(entry.get("outputs") or {} for entry in found)]
    regions = (outputs.get("region") or outputs.get("location") for outputs in everything)
    return cloud, next((region for region in regions if isinstance(region, str)), None)


def _machine_in(state: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return next((entry for entry in cloud_resources(state) if entry["type"] in VM_TYPES), {})


def tells_its_machine(state: Mapping[str, Any] | None, family: str) -> bool:
    """Whether the stack's outputs are of the machine that it holds, of its image and of how it is deallocated.

    An `up` that was cut off right after one was made, replaced or deleted has kept that, and the outputs from before.
    """
    known = {"vm_id": _machine_in(state).get("id"), "image": family, "deallocate_at": _shutdown_in(state)}
    known["self_deallocate"] = True if any(entry["type"] == ROLE for entry in cloud_resources(state)) else None
    return any(all(outputs.get(name) == value for name, value in known.items()) for outputs in stack_outputs(state))


def boots_another(state: Mapping[str, Any] | None, image: Image) -> bool:
    """Whether the machine in a checkpoint boots another image than that one: another family, or another ID.

    A newer image of the same family alone is no reason to replace a machine. The machine's inputs go before the stack's
    output: stacks from before one's own image was told by it name the cloud's there.
    """
    inputs = _machine_in(state).get("inputs") or {}
    named = ((inputs.get("storageProfile") or {}).get("imageReference") or {}).get("id")  # on Azure: one's own
    if image.own:
        return bool(inputs) and str(inputs.get("ami") or named).lower() != image.own.lower()
    families = [outputs["image"] for outputs in stack_outputs(state) if outputs.get("image")]
    return named is not None or any(family != image.family for family in families)


def has_trusted_launch(state: Mapping[str, Any] | None) -> bool:
    """Whether the machine in a checkpoint has trusted launch, or there is none that could be without."""
    machine = _machine_in(state)
    return not machine or bool(((machine.get("inputs") or {}).get("securityProfile") or {}).get("securityType"))


def principal_in(state: Mapping[str, Any] | None) -> str | None:
    """The ID of the identity that the machine in a checkpoint has of its own; None: it has none."""
    found = ((_machine_in(state).get("outputs") or {}).get("identity") or {}).get("principalId")
    return found if isinstance(found, str) else None


def had_identity(state: Mapping[str, Any] | None) -> bool:
    """Whether the machine in a checkpoint was ever given an identity of its own, or told to have none."""
    return bool((_machine_in(state).get("inputs") or {}).get("identity"))


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


def has_address(state: Mapping[str, Any] | None) -> bool:
    """Whether the checkpoint exports an address: then the smaller program must never run on it again."""
    return any(outputs.get("public_ip") for outputs in stack_outputs(state))


def has_machine(state: Mapping[str, Any] | None) -> bool:
    """Whether more than network and address is there (or was begun)."""
    return any(entry["type"] in _MACHINE_TYPES for entry in cloud_resources(state))
