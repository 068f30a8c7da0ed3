"""What a kit's owner chose for its machine: cloud, region, size, account. Kept for the next `up`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployer.ca_pins import state_home
from deployer.deployment import Deployment, digest
from deployer.errors import SpecError, UsageError
from deployer.ledger import Ledger
from deployer.member import Member
from deployer.placement import kept
from deployer.realm import Realm
from startup_kits import regions
from startup_kits.kit import Kit

SETTINGS = "owner.json"


def state_of(kit: Path | Kit) -> Path:
    """The owner's state folder for a kit; its name begins with the CA's fingerprint, so that two federations differ."""
    opened_kit = kit if isinstance(kit, Kit) else Kit.open(kit)
    short = opened_kit.ca_fingerprint.replace(":", "").lower()[:16]
    return state_home() / "owners" / f"{short}-{opened_kit.name}"


@dataclass(frozen=True)
class Choice:
    """What the owner chose at the first `up`, kept for the next ones."""

    cloud: str
    region: str
    zone: str | None = None
    size: str | None = None
    profile: str | None = None
    subscription: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


def chosen(saved: Mapping[str, Any] | None, given: Mapping[str, Any], participant: str) -> Choice:
    """What the owner wants: what is typed now goes before what was typed at the first time. Pure.

    Raises:
        UsageError: cloud or region were never named.
    """
    merged = {**(saved or {}), **{name: value for name, value in given.items() if value is not None}}
    cloud = merged.get("cloud")
    if cloud not in ("aws", "azure"):
        raise UsageError(
            "which cloud?" if cloud is None else f"{cloud} is no cloud that fedspan knows",
            participant=participant,
            next_step="--cloud aws, or --cloud azure",
        )
    if not merged.get("region"):
        example = "eu-west-1" if cloud == "aws" else "westeurope"
        raise UsageError("which region?", participant=participant, next_step=f"--region {example}, for example")
    return Choice(
        cloud=cloud,
        region=str(merged["region"]),
        zone=merged.get("zone"),
        size=merged.get("size"),
        profile=merged.get("profile"),
        subscription=merged.get("subscription"),
    )


def read_choice(state: Path) -> dict[str, Any] | None:
    """What was chosen before."""
    path = state / SETTINGS
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def check_residency(kit: Kit, choice: Choice) -> None:
    """The federation's residency binds a kit's owner too: it is in the signed part of the kit.

    Raises:
        SpecError: the chosen region lies elsewhere.
    """
    if not kit.residency or regions.allowed(list(kit.residency), choice.cloud, choice.region):
        return
    area = regions.area_of(choice.cloud, choice.region)
    where = f"lies in {area}" if area else "lies in no area that fedspan knows"
    fitting = {name: None for entry in kit.residency for name in regions.regions_of(entry, choice.cloud) or (entry,)}
    raise SpecError(
        f"region {choice.region} {where}, the federation's residency is {', '.join(kit.residency)}",
        participant=kit.name,
        next_step=f"--region with one of {', '.join(fitting)}",
    )


def to_close(kit: Kit, address: str) -> str:
    """What the server's owner must type when an address is a site's no more: the cloud gives it to somebody else."""
    command = f"fedspan allow {kit.name} {address}/32 --remove"
    return f"{address} is {kit.name}'s no more; the server's owner must type: {command}"


def deployment_of(kit: Kit, choice: Choice, realm: Realm) -> Deployment:
    """The deployment of one kit by its owner."""
    role: Literal["server", "site"] = "server" if kit.role == "server" else "site"
    member = Member(
        name=kit.name,
        role=role,
        target=choice.cloud,
        kit=kit.path,
        region=choice.region,
        zone=choice.zone,
        size=choice.size,
        profile=choice.profile,
        subscription=choice.subscription,
    ).with_kit(kit)
    state = state_of(kit)
    ledger = Ledger(state / "ledger.db")
    member = kept(member, ledger.participant(kit.name))
    return Deployment(
        federation=kit.federation,
        owner=f"{kit.name}@{kit.federation}",
        by="owner",
        state_dir=state,
        members={kit.name: member},
        ssh_from="auto",
        admins={},
        leads=(),
        digest=digest(None, [kit.path]),
        realm=realm,
        ledger=ledger,
    )
