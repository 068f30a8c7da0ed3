"""`reap`: what the clouds hold of this federation and no stack knows. Found by tag, by name and from the ledger.

Looked at: every account and region that the spec or the ledger names (on AWS also any other region that is asked for;
Azure answers for a whole subscription). What another deployment of the same federation made is told apart: somebody may
be using it, so it is deleted only by the deployment's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer.crew import Crew
from deployer.deployment import Deployment
from deployer.down import member_of
from deployer.errors import CloudError, FedspanError, RefusedError
from deployer.member import Member
from deployer.reap_cost import usd_hour, usd_so_far
from deployer.settle import Found, Whose, delete_all, find_all
from deployer.settle.state import orphans


@dataclass(frozen=True)
class Orphan:
    """Something that no stack knows. `ours` is False for another deployment's."""

    thing: Found
    whose: Whose
    ours: bool
    usd_hour: float | None
    usd: float | None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "participant": self.whose.participant,
            "deployment": self.whose.deployment,
            "ours": self.ours,
            "cloud": self.thing.cloud,
            "region": self.thing.region,
            "type": self.thing.type,
            "id": self.thing.id,
            "name": self.thing.name,
            "created": self.thing.created.isoformat() if self.thing.created else None,
            "usd_hour": self.usd_hour,
            "usd": self.usd,
        }


def seats(members: Iterable[Member], regions: Iterable[str] = ()) -> list[Member]:
    """One member for each account and region to look into; `regions` are looked into on AWS too. Pure."""
    found: dict[tuple[str | None, ...], Member] = {}
    for member in members:
        if member.cloud is None or member.region is None:
            continue
        more = regions if member.cloud == "aws" else ()
        for region in (member.region, *member.fallback_regions, *more):
            at = region if member.cloud == "aws" else None
            key = (member.cloud, member.account, member.profile, member.subscription, at)
            found.setdefault(key, replace(member, region=region))
    return list(found.values())


@dataclass
class Reap:
    """One `reap`.

    Args:
        regions: further regions of AWS to look into.
        deployment_id: another deployment whose things are to be deleted too.
        stacks_lost: no stack can be read any more, so whatever this deployment made counts.
    """

    crew: Crew
    kits_dir: Path
    regions: tuple[str, ...] = ()
    deployment_id: str | None = None
    stacks_lost: bool = False
    notes: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    """Places that gave no answer: what is there is not known."""
    _worlds: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def deployment(self) -> Deployment:
        """Whose federation."""
        return self.crew.deployment

    def find(self) -> list[Orphan]:
        """Everything that no stack knows, in every account and region that could hold it.

        Raises:
            CloudError: no cloud could be asked at all.
        """
        members = [*self.deployment.members.values()]
        members += [member_of(row, self.kits_dir) for row in self.deployment.ledger.participants()]
        places = seats(members, self.regions)
        found: dict[tuple[str, str, str], Orphan] = {}
        failed: list[FedspanError] = []
        for seat in places:
            try:
                for orphan in self._at(seat, {member.name for member in members}):
                    found.setdefault((orphan.thing.cloud, *orphan.thing.key), orphan)
                self.asked.append(f"{seat.cloud} {seat.region}")
            except FedspanError as error:
                failed.append(error)
                self.unasked.append(f"{seat.cloud} {seat.region}")
                self.notes.append(f"{seat.cloud} {seat.region} was not asked: {error.why or error.what}")
        if failed and len(failed) == len(places):
            raise CloudError("no cloud could be asked", why=str(failed[0]), next_step="fedspan reap")
        return list(found.values())

    def _at(self, seat: Member, names: set[str]) -> Iterator[Orphan]:
        """By tag (whoever's tags say this federation) and by name (whoever spec and ledger know)."""
        assert seat.cloud is not None, "seats lie in clouds"
        ours = self.deployment.ledger.deployment()
        access = self.deployment.realm.access(seat.cloud, seat)
        world = self.deployment.realm.world(seat.cloud, seat, access)
        known = [Whose(self.deployment.federation, ours, name) for name in sorted(names)]
        marked = world.marked(self.deployment.federation)
        for whose in dict.fromkeys([*known, *marked]):
            try:
                world.check(whose)
            except RefusedError as error:
                if whose in known and not any(other.participant == whose.participant for other in marked):
                    self.notes.append(f"{error.what}: {error.why}")
            things = find_all(world, whose)
            if whose.deployment == ours and things and not self.stacks_lost:
                things = list(orphans(things, self.crew.engine_named(whose.participant).state()))
            for thing in things:
                self._worlds[(thing.cloud, thing.id)] = world
                yield Orphan(thing, whose, whose.deployment == ours, usd_hour(thing), usd_so_far(thing, things))

    def chosen(self, orphans: Iterable[Orphan]) -> list[Orphan]:
        """What would be deleted: this deployment's, and that of the deployment which was named."""
        return [o for o in orphans if o.ours or o.whose.deployment == self.deployment_id]

    def delete(self, orphans: list[Orphan]) -> list[Orphan]:
        """Delete exactly these; returns what is there all the same.

        Raises:
            CloudError: a cloud refused.
        """
        worlds = {id(world): world for world in self._worlds.values()}
        for identity, world in worlds.items():
            mine = [o for o in orphans if id(self._worlds[(o.thing.cloud, o.thing.id)]) == identity]
            if not mine:
                continue
            delete_all(world, [orphan.thing for orphan in mine], self.crew.screen.line)
            for orphan in mine:
                self.deployment.ledger.event(orphan.whose.participant, "reaped", orphan.thing.title)
        left = {(o.thing.cloud, *o.thing.key) for o in self.find()}
        return [o for o in orphans if (o.thing.cloud, *o.thing.key) in left]
