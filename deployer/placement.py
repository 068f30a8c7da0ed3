"""Where a participant's machine may stand: the candidates in their order, and the one that was chosen before. Pure.

The order is by zone, then size, then market (spot, then on demand), then region; another region only where `up` was
told so, as it means another address. Only a machine that never stood is moved: its volume holds nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from deployer.ledger_rows import NOTHING_THERE, Event, Row
from deployer.member import Member

ZonesOf = Callable[[str, str], Sequence[str]]
"""The zones of a region that offer a size, asked of the cloud: `(region, size)` to names; empty where nobody knows."""

ON_DEMAND, SPOT = "on demand", "spot"


@dataclass(frozen=True)
class Place:
    """One candidate. `zone` None: the cloud's own choice."""

    region: str
    zone: str | None
    size: str
    spot: bool

    def title(self, *, tell_market: bool = False) -> str:
        """`m7i.large in eu-central-1b`, for people."""
        market = f"{SPOT if self.spot else ON_DEMAND} " if tell_market else ""
        if self.zone is None:
            where = self.region
        else:
            where = self.zone if self.zone.startswith(self.region) else f"{self.region} zone {self.zone}"
        return f"{market}{self.size} in {where}"


def place_of(member: Member) -> Place:
    """Where a participant is wanted now."""
    assert member.region is not None, "the spec names a region for every participant in a cloud"
    return Place(member.region, member.zone, member.offer().size, member.spot)


def moved(member: Member, place: Place) -> Member:
    """The participant, wanted there."""
    home = member.home_region or member.region
    return replace(
        member,
        region=place.region,
        zone=place.zone,
        size=place.size,
        spot=place.spot,
        home_region=home if place.region != home else None,
        zone_chosen=place.zone is not None and place.zone not in _named(member),
        market_chosen=(member.spot or member.market_chosen) and not place.spot,
    )


def candidates(member: Member, zones_of: ZonesOf, *, allow_fallback: bool = False) -> Iterator[Place]:
    """Every place to try, best first. A cloud is asked for its zones only when their turn has come.

    Args:
        zones_of: for a region where the spec names no zones.
        allow_fallback: the spec's fallback regions too.
    """
    home = member.home_region or member.region
    assert home is not None, "the spec names a region for every participant in a cloud"
    sizes = member.sizes or (member.offer().size,)
    for region in (home, *(member.fallback_regions if allow_fallback else ())):
        for spot in (True, False) if member.spot else (False,):
            for size in sizes:
                for zone in _zones(member, region, size, zones_of):
                    yield Place(region, zone, size, spot)


def _named(member: Member) -> tuple[str, ...]:
    """The zones that the spec names; they are the home region's."""
    return member.zones or ((member.zone,) if member.zone and not member.zone_chosen else ())


def _zones(member: Member, region: str, size: str, zones_of: ZonesOf) -> Iterator[str | None]:
    named = _named(member)
    if named and region == (member.home_region or member.region):
        yield from named
        return
    yield None
    yield from zones_of(region, size)


def stood(events: Sequence[Event]) -> bool:
    """Whether a machine ever stood since nothing was there: then its volume may hold data, and it stays where it is."""
    for event in reversed(events):
        if event.phase in NOTHING_THERE:
            return False
        if event.phase in ("machine", "pushed", "started", "registered"):
            return True
    return False


def kept(member: Member, row: Row | None) -> Member:
    """The participant where an earlier `up` placed it, as long as the spec still names that place as a candidate."""
    if row is None or row.phase in NOTHING_THERE or row.cloud != member.cloud or member.cloud is None:
        return member
    regions = (member.region, *member.fallback_regions)
    if row.region not in regions or row.region is None:
        return member
    at_home = row.region == member.region
    named = _named(member)
    keeps_zone = row.zone in named if named and at_home else True
    zone = row.zone if keeps_zone else member.zone
    fell_back = member.spot and row.outputs.get("market") == ON_DEMAND
    return replace(
        member,
        region=row.region,
        zone=zone,
        size=row.size if row.size in member.sizes else member.size,
        spot=member.spot and not fell_back,
        home_region=None if at_home else member.region,
        zone_chosen=zone is not None and zone not in named,
        market_chosen=fell_back,
    )
