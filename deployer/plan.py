"""A plan: what `up` would do to whom, what it costs, what will be open. Pure data, to show, to save and to compare.

A saved plan (`plan --out FILE`) is applied by `up --plan FILE`: what the engine wants then must be contained in what
the plan shows. Less is fine (an `up` that was interrupted has done a part), more is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deployer.engine_events import Action, Step
from deployer.errors import UsageError
from deployer.ingress import Opening
from stacks.extras import HOURS_A_MONTH
from startup_kits.workspace import write_private

PLAN_VERSION = 1
MAKE = "fedspan plan --out FILE"


@dataclass(frozen=True)
class ParticipantPlan:
    """One participant's part. `usd_hour` is the list price in USD an hour as of `as_of`; None: unknown.

    It is the price in `price_region`, as `price_source` has it. `extras_usd_hour` is what disks and address list at.
    `zones` are the zones that offer the size, where the spec leaves the zone open and the cloud was asked.

    `steps` are what the engine will do; `note` says why there are none where that needs a word; `torch` says where job
    scripts get torch from; `uses` names what is the account's own (network, image, key); `idle` what its machine does
    when no job runs. `self_deallocate`: its machine gets an identity of its own, which may turn it on and off.
    """

    name: str
    role: str
    target: str
    place: str = ""
    zone: str = ""
    size: str = ""
    gpus: str = ""
    usd_hour: float | None = None
    as_of: str = ""
    price_region: str = ""
    price_source: str = ""
    zones: tuple[str, ...] = ()
    os_disk_gib: int = 0
    state_disk_gib: int = 0
    extras_usd_hour: float | None = None
    steps: tuple[Step, ...] = ()
    openings: tuple[Opening, ...] = ()
    note: str = ""
    torch: str = ""
    uses: str = ""
    idle: str = ""
    self_deallocate: bool = False

    def count(self, action: Action) -> int:
        """How many resources that happens to."""
        return sum(1 for step in self.steps if step.action == action)

    @property
    def total_usd_hour(self) -> float | None:
        """Machine, disks and address in USD an hour; None when one of them is unknown."""
        if self.usd_hour is None or self.extras_usd_hour is None:
            return None
        return self.usd_hour + self.extras_usd_hour

    @property
    def usd_month(self) -> float | None:
        """The same for a month of 730 hours."""
        return None if self.total_usd_hour is None else self.total_usd_hour * HOURS_A_MONTH

    @property
    def replaces_machine(self) -> bool:
        """Whether its machine is replaced: then it gets a new host key."""
        return any(step.action == "replace" and step.type in VM_TYPES for step in self.steps)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "target": self.target,
            "region": self.place or None,
            "zone": self.zone or None,
            "size": self.size or None,
            "gpus": self.gpus or None,
            "zone_candidates": list(self.zones),
            "os_disk_gib": self.os_disk_gib or None,
            "state_disk_gib": self.state_disk_gib or None,
            "usd_hour": self.usd_hour,
            "extras_usd_hour": _cents(self.extras_usd_hour),
            "total_usd_hour": _cents(self.total_usd_hour),
            "usd_month": _cents(self.usd_month),
            "price_as_of": self.as_of or None,
            "price_region": self.price_region or None,
            "price_source": self.price_source or None,
            "create": self.count("create"),
            "update": self.count("update"),
            "replace": self.count("replace"),
            "delete": self.count("delete"),
            "steps": [step.document() for step in self.steps],
            "open": [opening.document() for opening in self.openings],
            "note": self.note or None,
            "torch": self.torch or None,
            "uses": self.uses or None,
            "idle": self.idle or None,
            "self_deallocate": self.self_deallocate,
        }


VM_TYPES = frozenset({"aws:ec2/instance:Instance", "azure-native:compute:VirtualMachine"})
RULE_TYPES = frozenset(
    {"aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "azure-native:network:SecurityRule"}
)


def is_rule(step: Step) -> bool:
    """Whether a step is about who may reach a port."""
    return step.type in RULE_TYPES


@dataclass(frozen=True)
class Plan:
    """All participants' parts, for one realm, one spec and one set of kits."""

    federation: str
    realm: str
    realm_id: str
    digest: str
    made: str
    participants: tuple[ParticipantPlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> int:
        """How many resources change."""
        return sum(len(part.steps) for part in self.participants)

    @property
    def usd_hour(self) -> float | None:
        """The machines' list price together, an hour; None when one of them is unknown."""
        prices = [part.usd_hour for part in self.participants if part.size]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    @property
    def total_usd_hour(self) -> float | None:
        """Machines, disks and addresses together, an hour; None when one of them is unknown."""
        prices = [part.total_usd_hour for part in self.participants if part.size]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    def part(self, name: str) -> ParticipantPlan | None:
        """One participant's part."""
        return next((part for part in self.participants if part.name == name), None)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "version": PLAN_VERSION,
            "federation": self.federation,
            "realm": self.realm,
            "realm_id": self.realm_id,
            "digest": self.digest,
            "made": self.made,
            "changes": self.changes,
            "usd_hour": self.usd_hour,
            "total_usd_hour": _cents(self.total_usd_hour),
            "participants": [part.document() for part in self.participants],
            "notes": list(self.notes),
        }

    def save(self, path: Path) -> None:
        """Write it (0600): it names addresses and accounts' resources."""
        write_private(path, (json.dumps(self.document(), indent=1) + "\n").encode())


def _cents(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 4)


def now() -> str:
    """The time that a plan carries, UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(path: Path) -> Plan:
    """A saved plan.

    Raises:
        UsageError: there is none, or it is of another version.
    """
    try:
        document = json.loads(path.read_text())
        if document["version"] != PLAN_VERSION:
            raise UsageError(f"{path} is a plan of another fedspan", next_step=MAKE)
        return Plan(
            federation=document["federation"],
            realm=document["realm"],
            realm_id=document["realm_id"],
            digest=document["digest"],
            made=document["made"],
            participants=tuple(_part(entry) for entry in document["participants"]),
            notes=tuple(document.get("notes", ())),
        )
    except OSError as error:
        raise UsageError(f"{path} can't be read", why=error.strerror, next_step=MAKE) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no plan", why="fedspan plan did not write it", next_step=MAKE) from None


def _part(entry: Mapping[str, Any]) -> ParticipantPlan:
    return ParticipantPlan(
        name=entry["name"],
        role=entry["role"],
        target=entry["target"],
        place=entry["region"] or "",
        zone=entry["zone"] or "",
        size=entry["size"] or "",
        gpus=entry["gpus"] or "",
        usd_hour=entry["usd_hour"],
        as_of=entry["price_as_of"] or "",
        price_region=entry.get("price_region") or "",
        price_source=entry.get("price_source") or "",
        zones=tuple(entry.get("zone_candidates") or ()),
        os_disk_gib=entry.get("os_disk_gib") or 0,
        state_disk_gib=entry.get("state_disk_gib") or 0,
        extras_usd_hour=entry.get("extras_usd_hour"),
        steps=tuple(
            Step(step["urn"], step["type"], step["name"], step["action"], tuple(step["reasons"]))
            for step in entry["steps"]
        ),
        openings=tuple(
            Opening(one["port"], one["from"] or "192.0.2.1/32", one["who"], one["from"] is None)
            for one in entry["open"]
        ),
        note=entry["note"] or "",
        torch=entry.get("torch") or "",
        uses=entry.get("uses") or "",
        idle=entry.get("idle") or "",
        self_deallocate=bool(entry.get("self_deallocate")),
    )
