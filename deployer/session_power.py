"""`stop` and `start`: machines off and on again, keeping addresses, disks and everything on them.

A stopped machine in a cloud costs its disks and its address, not its hours. A machine that was there before us (`host`)
is never turned off: there the runtime stops and starts. A job that runs on a stopped site waits for it or goes on
without it, as its quorum says; a stopped server holds all jobs, which go on where they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deployer import realm as realms
from deployer.cli import context
from deployer.crew import Crew, together
from deployer.down import deployed, without_spec
from deployer.drain import Jobs, idle_seconds, server_says, settle_jobs
from deployer.errors import RefusedError
from deployer.expiry import expiry_of
from deployer.expiry_units import stamp
from deployer.idle import note_off
from deployer.ledger import STOPPED, Ledger, Row
from deployer.live import screen
from deployer.machine_run import log_in
from deployer.member import Member
from deployer.power import OFF, power_of
from deployer.reach import reach_of
from deployer.register import Awaited, wait_for
from deployer.session import Session, opened
from deployer.session_down import from_ledger
from deployer.settings import setting
from deployer.status import ago


def turn(verb: str, names: list[str], jobs: Jobs = "refuse", idle_s: float | None = None) -> dict[str, str]:
    """`stop` or `start` of the named participants (all by default); returns the state of each.

    Raises:
        UsageError: nobody of that name is deployed.
        RefusedError: a job runs there, the owner runs it, or the answer was no.
        What went wrong, of all participants together.
    """
    workspace = context.workspace()
    ledger = Ledger(workspace.ledger_path)
    rows = {row.name: row for row in chosen(ledger, names, verb)}
    deployment = without_spec(from_ledger(workspace, ledger, realms.current()), rows.values(), workspace.kits_dir)
    with opened(deployment, list(deployment.members.values()), verb) as session:
        if idle_s is not None and (busy := _not_idle(session.crew, rows.values(), idle_s)):
            return busy
        if verb == "stop":
            settle_jobs(session.crew, rows.values(), jobs, verb)
            context.confirm(f"Stop the machines of {', '.join(rows)}? Disks and addresses stay, and go on costing.")
        with screen(list(rows)) as live:
            session.show(live)
            work = _stop if verb == "stop" else _start
            states, errors = session.crew.each(
                deployment.members.values(), lambda member: _guarded(session.crew, member, rows[member.name], work)
            )
            if verb == "start" and not errors:
                _await_sites(session, rows)
    if errors:
        raise together(errors, len(rows))
    return states


def _not_idle(crew: Crew, rows: Iterable[Row], idle_s: float) -> dict[str, str]:
    """Everybody's state, when a job ran within that time; empty when none did.

    Raises:
        RefusedError: the server does not answer, so nobody knows.
    """
    status = server_says(crew)
    if status is None:
        raise RefusedError(
            "the server does not say when the last job ran",
            participant="server",
            why="only what is known to be idle is stopped",
            next_step="fedspan status",
        )
    rows = list(rows)
    since = max(on_since(crew.deployment.ledger, row) for row in rows)
    idle = idle_seconds(status, since, time.time())
    return {} if idle >= idle_s else {row.name: f"left on: no job for {ago(idle)} only" for row in rows}


def on_since(ledger: Ledger, row: Row) -> float:
    """When a participant's machine was deployed, or was turned on last; seconds since the epoch."""
    turned_on = [event.at for event in ledger.events(row.name) if event.phase == "machine"]
    return max([row.since, *turned_on])


def chosen(ledger: Ledger, names: list[str], verb: str) -> list[Row]:
    """Whose machines we can act on: the named ones, else all but those that their owners run.

    Raises:
        UsageError: nobody of that name is deployed.
        RefusedError: one that was named is run by its owner; or there is nobody.
    """
    rows = deployed(ledger, names)
    owners = [row.name for row in rows if row.target == "kit"]
    if owners and names:
        raise RefusedError(
            "its owner runs it",
            participant=owners[0],
            next_step=f"ask its owner to type ./{'stop' if verb == 'stop' else 'start'}.sh",
        )
    found = [row for row in rows if row.target != "kit" and row.address]
    if not found:
        raise RefusedError("nothing is deployed", next_step="fedspan up")
    return found


def _guarded(crew: Crew, member: Member, row: Row, work: Callable[[Crew, Member, Row], str]) -> str:
    try:
        return work(crew, member, row)
    except BaseException as error:
        now = crew.deployment.ledger.participant(member.name)
        if now is not None and now.phase == STOPPED:  # still off: that is what `status` has to say
            crew.screen.phase(member.name, "failed", str(error))
        else:
            crew.failed(member.name, error)
        raise


def machine_id(row: Row) -> str:
    """The machine's ID in its cloud. Raises RefusedError: an `up` failed before there was one."""
    vm_id = str(row.outputs.get("vm_id") or "")
    if not vm_id:
        raise RefusedError("has no machine yet", participant=row.name, next_step=f"fedspan up {row.name}")
    return vm_id


def switch(crew: Crew, member: Member, row: Row) -> tuple[Any, str]:
    """The power of a participant's machine in its cloud, and the machine's ID there."""
    assert member.cloud is not None, "only a machine in a cloud has a switch"
    vm_id = machine_id(row)
    realm = crew.deployment.realm
    world = realm.world(member.cloud, member, realm.access(member.cloud, member))
    return power_of(member.cloud, world, member.region or "", member.name), vm_id


def _stop(crew: Crew, member: Member, row: Row) -> str:
    crew.screen.phase(member.name, "stopping")
    if member.cloud:
        power, vm_id = switch(crew, member, row)
        power.stop(vm_id)
    else:
        from deployer.bootstrap import runtime_stop

        with log_in(
            reach_of(row, crew.deployment.state_dir / "ssh"), crew.interrupts, setting("SSH_DEADLINE")
        ) as machine:
            runtime_stop(machine)
    crew.deployment.ledger.record(member.name, STOPPED)
    crew.screen.phase(member.name, STOPPED)
    return STOPPED


def _start(crew: Crew, member: Member, row: Row) -> str:
    end = expiry_of(crew.deployment.ledger, member.name)
    if end is not None and end <= time.time():
        raise RefusedError(
            "its time to live is over",
            participant=member.name,
            why=f"since {stamp(end)}; turned on, it would soon go off again",
            next_step=f"fedspan up {member.name} --ttl 8h",
        )
    start_machine(crew, member, row)
    return "started"


def start_machine(crew: Crew, member: Member, row: Row) -> None:
    """Turn a machine on, wait for its SSH, and see that its runtime runs."""
    from deployer.service import Service

    crew.screen.phase(member.name, "booting")
    if member.cloud:
        power, vm_id = switch(crew, member, row)
        if power.look(vm_id) in OFF:
            note_off(crew.deployment.ledger, row)
        power.start(vm_id)
        crew.deployment.ledger.record(member.name, "machine", detail="turned on")  # it bills, whatever fails now
    with log_in(reach_of(row, crew.deployment.state_dir / "ssh"), crew.interrupts, setting("SSH_DEADLINE")) as machine:
        crew.screen.phase(member.name, "starting")
        service = Service(machine)
        service.prepare()
        service.start_again()
    crew.deployment.ledger.record(member.name, "started", detail="turned on")
    crew.screen.phase(member.name, "started")


def _await_sites(session: Session, rows: Mapping[str, Row]) -> None:
    """Until the server reports every site that was started here."""
    ledger, ssh = session.deployment.ledger, session.deployment.state_dir / "ssh"
    server = ledger.participant("server")
    sites = [Awaited(name, reach_of(row, ssh)) for name, row in rows.items() if row.role == "site"]
    if server is None or server.target == "kit" or server.phase not in ("started", "registered") or not sites:
        return
    wait_for(session.crew, reach_of(server, ssh), sites)
