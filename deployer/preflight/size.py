"""Whether the size is offered to this account, in which zones, and whether the wanted zone is among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deployer.cloud_clients import offered_zones
from deployer.errors import CapacityError
from deployer.preflight.model import Finding
from deployer.preflight.place import Place, Wanted, asking


@dataclass(frozen=True)
class Offered:
    """Where a size can be had: `zones` in their order. `regional`: without naming a zone too.

    `restricted` says why not, in the cloud's own words.
    """

    zones: tuple[str, ...]
    regional: bool
    restricted: str = ""


def check(place: Place) -> Iterable[Finding]:
    """For each participant whose machine is going to be made or resized."""
    wanted = [one for one in place.wanted if one.needs_room]
    if not wanted:
        return
    offers = offered(place)
    for one in wanted:
        yield _judged(place, one, offers.get(one.args.size.lower()))


def zones_of(place: Place) -> dict[str, tuple[str, ...]]:
    """The zones that each participant's size is offered in, for those that name no zone: candidates, in order."""
    wanted = [one for one in place.wanted if one.args.zone is None]
    offers = offered(place) if wanted else {}
    return {one.name: found.zones for one in wanted if (found := offers.get(one.args.size.lower())) is not None}


def offered(place: Place) -> dict[str, Offered]:
    """Of the wanted sizes (small letters) those that this place offers; one that is missing is not offered at all."""
    sizes = {one.args.size for one in place.wanted}
    if place.cloud == "aws":
        return {size: Offered(zones, True) for size, zones in place.once("offers", lambda: _aws(place, sizes)).items()}
    known = skus(place)
    return {size: _sku(known[size]) for size in map(str.lower, sizes) if size in known}


def _aws(place: Place, sizes: set[str]) -> dict[str, tuple[str, ...]]:
    with asking("ec2:DescribeInstanceTypeOfferings"):
        return offered_zones(place.aws("ec2"), sizes)


def skus(place: Place) -> dict[str, Any]:
    """Azure: all machine sizes of the region as this subscription may use them, by their names in small letters."""
    return place.once("skus", lambda: _skus(place))


def _skus(place: Place) -> dict[str, Any]:
    with asking("Microsoft.Compute/skus/read"):
        found = list(place.azure.compute.resource_skus.list(filter=f"location eq '{place.region}'"))
    return {str(sku.name).lower(): sku for sku in found if str(sku.resource_type).lower() == "virtualmachines"}


def _sku(sku: Any) -> Offered:
    zones = [zone for info in sku.location_info or [] for zone in info.zones or []]
    closed: set[str] = set()
    reasons: list[str] = []
    regional = True
    for restriction in sku.restrictions or []:
        kind = str(getattr(restriction.type, "value", restriction.type)).lower()
        reasons.append(str(getattr(restriction.reason_code, "value", restriction.reason_code)))
        if kind == "location":
            regional = False
            closed.update(zones)
        else:
            info = restriction.restriction_info
            closed.update((info.zones if info else None) or [])
    return Offered(tuple(sorted(set(zones) - closed)), regional, ", ".join(sorted(set(reasons))))


def _judged(place: Place, one: Wanted, found: Offered | None) -> Finding:
    size, zone = one.args.size, one.zone

    def refused(what: str, why: str, next_step: str) -> Finding:
        if one.others:
            return Finding("size", what, "warning", one.name, why, "nothing: `up` tries the next place of the spec")
        if regions := one.member.fallback_regions:
            next_step += f"; or --allow-fallback, which tries {', '.join(regions)} with a new address"
        return Finding("size", what, "refused", one.name, why, next_step, CapacityError)

    if found is None or (not found.regional and not found.zones):
        return refused(
            f"{size} is not offered in {place.region}",
            (found.restricted if found else "") or "it is not in the list of what this region offers to this account",
            "another `size:` or `region:` in federation.yml"
            + ("" if place.cloud == "aws" else ", or ask Microsoft for access to it (a support request)"),
        )
    if zone is not None and zone not in found.zones:
        have = f"it can be had in {', '.join(found.zones)}" if found.zones else "no zone offers it"
        if one.standing is not None and zone == one.standing.zone:
            have, step = f"its machine and disk are there; {have}", "another `size:` in federation.yml"
        else:
            step = f"zone: {found.zones[0]} in federation.yml, or no zone:" if found.zones else "another `size:`"
        why = f"{have} ({found.restricted})" if found.restricted else have
        return refused(f"{size} is not offered in zone {zone}", why, step)
    where = zone or ", ".join(found.zones) or place.region
    return Finding("size", f"{size} is offered in {where}", participant=one.name)
