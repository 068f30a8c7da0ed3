"""The machine that stands and is replaced or resized: what is made for it anew, and what it gives back. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.checkpoint import ROLE, cloud_resources
from deployer.engine_events import Step
from deployer.ledger_rows import Row
from deployer.plan import VM_TYPES
from stacks.args import ParticipantArgs
from stacks.images import image_for
from stacks.names import Cloud
from stacks.resources import describe


@dataclass(frozen=True)
class Standing:
    """A machine that has to make room for what is wanted: it is deleted first, or stopped to be resized.

    `zone` is where it stands, None: nobody knows, or in none. `image` is the AMI that it boots, empty: nobody knows.
    """

    id: str
    size: str
    spot: bool
    zone: str | None = None
    image: str = ""


def creates(steps: Iterable[Step]) -> Counter[str]:
    """How many of each Pulumi type are made: a machine in another's place too, and the right that follows it."""
    again = VM_TYPES | {ROLE}
    return Counter(
        step.type for step in steps if step.action == "create" or (step.action == "replace" and step.type in again)
    )


def is_resized(step: Step) -> bool:
    """Whether a machine gets another size where it stands: the cloud stops it, then needs room for the new size."""
    named = (reason == "instanceType" or reason.startswith("hardwareProfile") for reason in step.reasons)
    return step.action == "update" and step.type in VM_TYPES and any(named)


def standing(steps: Iterable[Step], state: Mapping[str, Any] | None) -> Standing | None:
    """The machine in a checkpoint, where these steps replace or resize it."""
    changed = [step for step in steps if step.type in VM_TYPES and (step.action == "replace" or is_resized(step))]
    machine = next((entry for entry in cloud_resources(state) if entry["type"] in VM_TYPES), None)
    if not changed or machine is None:
        return None
    inputs, outputs = machine.get("inputs") or {}, machine.get("outputs") or {}
    market = (inputs.get("instanceMarketOptions") or {}).get("marketType") or inputs.get("priority") or ""
    return Standing(
        id=str(machine.get("id") or ""),
        size=str(inputs.get("instanceType") or (inputs.get("hardwareProfile") or {}).get("vmSize") or ""),
        spot=market.lower() == "spot",
        zone=outputs.get("availabilityZone") or next(iter(inputs.get("zones") or ()), None),
        image=str(inputs.get("ami") or ""),
    )


def from_row(cloud: Cloud, row: Row, args: ParticipantArgs) -> tuple[Counter[str], Standing | None]:
    """What the ledger alone tells of a deployed participant: what would be made, and for which machine.

    Another size or image makes another machine, or resizes it; what else would, only the engine knows.
    """
    made = Counter(entry.type for entry in describe(cloud, args))
    if (row.cloud, row.region) != (cloud, args.region):
        return made, None
    machine = Counter({kind: count for kind, count in made.items() if kind in VM_TYPES})
    vm_id = str(row.outputs.get("vm_id") or "")
    if not vm_id:
        return machine, None
    family = image_for(cloud, args).family
    another_image = row.outputs.get("image", family) != family
    if not another_image and row.size == args.size:
        return Counter(), None
    stands = Standing(vm_id, row.size or "", args.spot, row.zone)
    return (machine if another_image else Counter()), stands
