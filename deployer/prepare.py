"""What every command does before it lets an engine loose: settle what a crash left, read states, check identities."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib.metadata import version

from pulumi.automation import CommandError

from deployer.checkpoint import end_in
from deployer.crew import Crew, together
from deployer.errors import CloudError, RefusedError
from deployer.expiry import expiry_of
from deployer.idle import idle_of
from deployer.ledger import NOTHING_THERE, Ledger
from deployer.member import Member
from deployer.part import Part
from deployer.plan_make import Planner
from deployer.power import GONE, power_of
from deployer.programs import PROVIDERS
from deployer.recover import settle_stack


def install_plugins(crew: Crew, members: Iterable[Member]) -> None:
    """Real clouds: the provider plugins, once and one after the other (two engines that download one race for it)."""
    if crew.deployment.realm.kind != "real":
        return
    from deployer.engine_command import EngineCommand

    for cloud in sorted({member.cloud for member in members if member.cloud}):
        plugin, distribution = PROVIDERS[cloud]
        wanted = f"v{version(distribution)}"
        crew.screen.line(f"provider plugin {plugin} {wanted}")
        command = EngineCommand(crew.deployment.realm, crew.interrupts, plugin, crew.log.file("plugins"))
        try:
            command.run(["plugin", "install", "resource", plugin, wanted], str(crew.deployment.home.folder), {})
        except CommandError as error:
            raise CloudError(
                f"the provider plugin {plugin} {wanted} could not be installed",
                why=str(error).strip().splitlines()[-1].strip(),
                next_step=f"pulumi plugin install resource {plugin} {wanted}",
                log=str(crew.log.path("plugins")),
            ) from error


def check_target(ledger: Ledger, member: Member) -> None:
    """A participant goes from one cloud to the other by itself; anything else leaves things behind, unseen.

    Raises:
        RefusedError: it is deployed in a cloud or on a host, and the spec wants it elsewhere.
    """
    row = ledger.participant(member.name)
    if row is None or row.phase in NOTHING_THERE or row.target in (member.target, "kit"):
        return
    if row.cloud is None or member.cloud is None:
        raise RefusedError(
            f"deployed on {row.target}, and federation.yml says {member.target}",
            participant=member.name,
            why=f"what is on {row.target} would be left there" + (", and cost on" if row.cloud else ""),
            next_step=f"fedspan down {member.name} takes that down; then fedspan up",
        )


def prepare(crew: Crew, planner: Planner, members: Iterable[Member]) -> dict[str, Part]:
    """States and identities of `members`, all at once; what a crash left behind is settled first.

    Raises:
        The first participant's error, or all of them together.
    """
    members = list(members)
    for member in members:
        check_target(crew.deployment.ledger, member)
    install_plugins(crew, members)

    def work(member: Member) -> Part:
        engine = crew.engine(member)
        if engine is None:
            return planner.prepare(member)
        with crew.slot():
            access = crew.deployment.realm.access(member.cloud or "", member)
            stood = settle_stack(crew, member.name, member.cloud or "", member, access, goes_on=True)
            for text in stood.told:
                crew.screen.line(f"{member.name}: {text}")
            part = planner.prepare(member, stood.state, access)
            # a machine that has reached its end is gone without the engine's knowing, whatever its next end is to be
            ends = (expiry_of(crew.deployment.ledger, member.name), end_in(part.state))
            over = any(end is not None and end <= time.time() for end in ends)
            part.refresh = stood.refresh or planner.refresh or over or _idled_away(crew, part)
            return part

    parts, errors = crew.each(members, work)
    if errors:
        raise together(errors, len(members))
    return {member.name: parts[member.name] for member in members}


def _idled_away(crew: Crew, part: Part) -> bool:
    """Whether AWS has terminated a machine that turned itself off, being idle, without the engine's knowing."""
    member = part.member
    row = crew.deployment.ledger.participant(member.name)
    vm_id = row.outputs.get("vm_id") if row is not None else None
    if member.cloud != "aws" or not vm_id or idle_of(crew.deployment.ledger, member.name) is None:
        return False
    if not (member.spot or end_in(part.state)):
        return False  # it was stopped, as any other is
    world = crew.deployment.realm.world(member.cloud, member, part.access)
    return power_of(member.cloud, world, member.region or "", member.name).look(str(vm_id)) == GONE


def complete(crew: Crew, planner: Planner, parts: dict[str, Part]) -> None:
    """The engine's opinion of every stack that holds something, with all addresses that are known."""

    def work(member: Member) -> None:
        with crew.slot():
            planner.complete(parts[member.name], crew.engine(member), plan_name="agreed.plan")

    _, errors = crew.each([part.member for part in parts.values()], work)
    if errors:
        raise together(errors, len(parts))
