"""The places that one participant's machine has been tried at, and the next one: what goes round `placement`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from deployer.crew import Crew
from deployer.errors import CapacityError, FedspanError
from deployer.part import Part
from deployer.placement import Place, candidates, place_of, stood
from stacks.catalogue import price

# EC2 tells which zone it had chosen itself
_CHOSEN = re.compile(r"in the Availability Zone you requested \(([a-z0-9-]+)\)")


@dataclass
class Attempts:
    """One participant's way through its candidates.

    Args:
        part: whose `member` says where it is tried now.
        allow_fallback: its fallback regions too; never the server's once its address is known.
        capped: there is a cap on the price: no place may list above the one that was shown.
        regions_only: only network and address are made: zone and size say nothing about them.
    """

    crew: Crew
    part: Part
    allow_fallback: bool
    capped: bool = False
    regions_only: bool = False
    told: list[str] = field(default_factory=list)
    _tried: set[Place] = field(default_factory=set)
    _left: Iterator[Place] | None = None

    def after(self, error: CapacityError) -> Place:
        """The next place after the cloud had no room at the present one.

        Raises:
            CapacityError: `error`, with the places that were tried, where none is left.
        """
        member = self.part.member
        if self._left is None:
            self._left = self._candidates()
        here = place_of(member)
        self._tried.add(here)
        if here.zone is None and (chosen := _CHOSEN.search(error.why or "")):
            self._tried.add(replace(here, zone=chosen.group(1)))
        self.told.append(self.title(here))
        # no quota for spot machines says nothing about others
        goes_on = error.kind == "capacity" or (error.kind == "quota" and here.spot)
        if not goes_on or stood(self.crew.deployment.ledger.events(member.name)):
            raise error
        for place in self._left:
            if place in self._tried or (error.kind == "quota" and place.spot):
                continue
            if self.capped and not self._affordable(place):
                continue
            if self.regions_only and any(place.region == tried.region for tried in self._tried):
                continue
            return place
        raise self._nowhere(error)

    def _affordable(self, place: Place) -> bool:
        cloud, shown = self.part.member.cloud, self.crew.deployment.members.get(self.part.member.name)
        assert cloud is not None, "only a participant in a cloud has a place"
        most = price(cloud, place_of(shown or self.part.member).size)
        here = price(cloud, place.size)
        return most is not None and here is not None and here <= most

    def title(self, place: Place) -> str:
        """`spot m7i.large in eu-central-1a`."""
        return place.title(tell_market=self.part.member.spot or any(tried.spot for tried in self._tried))

    def _candidates(self) -> Iterator[Place]:
        member = self.crew.deployment.members.get(self.part.member.name, self.part.member)
        fallback = self.allow_fallback and (member.role != "server" or self.regions_only)
        return candidates(member, self._zones_of, allow_fallback=fallback)

    def _zones_of(self, region: str, size: str) -> Sequence[str]:
        """Asked of the cloud; where the right to ask is missing, its own choice has to do."""
        member, realm = replace(self.part.member, region=region), self.crew.deployment.realm
        assert member.cloud is not None, "only a participant in a cloud has a place"
        try:
            access = realm.access(member.cloud, member)
            return realm.world(member.cloud, member, access).zones(size)
        except FedspanError as error:
            self.crew.screen.line(f"{member.name}: the zones of {region} are not known: {error.why or error.what}")
            return ()

    def _nowhere(self, error: CapacityError) -> CapacityError:
        member = self.part.member
        if len(self.told) > 1:
            error.why = f"{error.why}; tried {', '.join(self.told)}"
        unused = [region for region in member.fallback_regions if region not in {p.region for p in self._tried}]
        if unused and not self.allow_fallback:
            error.next_step = f"fedspan up {member.name} --allow-fallback tries {', '.join(unused)}, with a new address"
        return error
