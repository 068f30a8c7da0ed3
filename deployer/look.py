"""`status --refresh`: what the clouds themselves say of each machine, and what is otherwise than it was made.

Asks and changes nothing. Everybody at once; a cloud that can't be asked is told beside the others' answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.backend import check_backend
from deployer.crew import Crew
from deployer.deployment import Deployment
from deployer.down import deployed, without_spec
from deployer.drift import Drift, unknown
from deployer.errors import FedspanError
from deployer.interrupts import Interrupts
from deployer.ledger import Row
from deployer.live import Silent
from deployer.member import Member
from deployer.power import power_of
from deployer.runlog import RunLog


@dataclass(frozen=True)
class CloudView:
    """What a cloud says of one participant: its machine's power, what differs, or why nothing is known."""

    machine: str = ""
    drift: tuple[Drift, ...] = ()
    trouble: str = ""


@dataclass
class Look:
    """One look at the clouds of a deployment (as `session_down.from_ledger` makes it)."""

    deployment: Deployment
    kits_dir: Path
    views: dict[str, CloudView] = field(default_factory=dict, init=False)

    def take(self) -> Mapping[str, CloudView]:
        """Ask for everybody that is deployed in a cloud. Raises RealmError: their stacks lie in another backend."""
        rows = {row.name: row for row in deployed(self.deployment.ledger, []) if row.cloud}
        deployment = without_spec(self.deployment, rows.values(), self.kits_dir)
        log = RunLog(deployment.state_dir, "status")
        crew = Crew(deployment, Silent(), Interrupts(), log, "status")

        def one(member: Member) -> CloudView:
            try:
                with crew.slot():
                    return self._one(crew, member, rows[member.name])
            except FedspanError as error:
                return CloudView(trouble=f"{error.what}: {error.why}" if error.why else error.what)

        try:
            check_backend(crew)
            views, errors = crew.each(deployment.members.values(), one)
        finally:
            log.close()
        for error in errors.values():
            raise error
        return views

    def _one(self, crew: Crew, member: Member, row: Row) -> CloudView:
        from deployer.settle import Whose, find_all, orphans

        assert member.cloud is not None, "only participants in a cloud are looked at"
        deployment = crew.deployment
        access: Any = deployment.realm.access(member.cloud, member)
        world = deployment.realm.world(member.cloud, member, access)
        vm_id = row.outputs.get("vm_id")
        machine = power_of(member.cloud, world, member.region or "", member.name).look(vm_id) if vm_id else "none yet"
        engine = crew.engine_named(member.name)
        whose = Whose(deployment.federation, deployment.ledger.deployment(), member.name)
        strangers = orphans(find_all(world, whose), engine.state())
        drift = [*engine.drift(), *unknown(found.title for found in strangers)]
        return CloudView(machine, tuple(drift))
