"""`upgrade` and `rollback` of the runtime on running machines: checked first, then one after the other.

The server goes first: it speaks the protocol before its own, so its sites may follow in their own time. Each machine
keeps the environment that it had, so that going back needs no push. A machine that fails stops the rest where they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from deployer import realm as realms
from deployer.bundle import build_bundle
from deployer.cli import context
from deployer.compatible import Abilities, check_protocols, check_schema
from deployer.crew import Crew
from deployer.deployment import lead
from deployer.drain import Jobs, server_says, settle_jobs
from deployer.errors import RefusedError
from deployer.expiry import expiry_of
from deployer.idle import idle_of
from deployer.launch import Started
from deployer.ledger import STOPPED, Ledger, Row
from deployer.live import screen
from deployer.machine_run import Start, install_and_start, labels, log_in
from deployer.member import Member
from deployer.reach import Reach, reach_of
from deployer.register import Awaited, wait_for
from deployer.server_address import server_endpoint
from deployer.service import VENV, Service
from deployer.session import opened
from deployer.session_power import chosen, machine_id
from deployer.settings import setting
from deployer.targets import Target
from startup_kits.kit import Kit
from startup_kits.spec import load_spec


@dataclass(frozen=True)
class Standing:
    """What runs on a machine.

    Attributes:
        now: abilities of the runtime that is there, whether it came up or not.
        before: of the one that a rollback would lead to.
        note: what was started.
        answers: whether the runtime says something of itself.
        bundle: what this fedspan would bring.
    """

    now: Abilities | None
    before: Abilities | None
    note: Started
    answers: bool
    bundle: str

    @property
    def outdated(self) -> bool:
        """Whether an upgrade would change it: another runtime, or this one, which did not come up or runs no more."""
        launch = self.note.launch
        return launch is None or launch.bundle != self.bundle or bool(self.note.trying) or not self.answers

    @property
    def present(self) -> str:
        """The bundle that is there, whether it came up or not."""
        return self.note.trying or (self.note.launch.bundle if self.note.launch else "")


def bring(verb: str, names: list[str], jobs: Jobs) -> dict[str, dict[str, Any]]:
    """`upgrade` or `rollback` of the named participants (all that we deployed by default).

    Returns:
        For each: `from` and `to` (versions), and whether anything `changed`.

    Raises:
        UsageError, RefusedError: nobody of that name, a machine that is off, versions that don't fit, a job that runs.
    """
    workspace = context.workspace()
    rows = chosen(Ledger(workspace.ledger_path), names, verb)
    off = [row.name for row in rows if row.phase == STOPPED]
    if off:
        raise RefusedError("its machine is off", participant=off[0], next_step=f"fedspan start {' '.join(off)}")
    for row in rows:
        if row.cloud:
            machine_id(row)
    deployment = lead(workspace, load_spec(workspace.spec_path), realms.current())
    members = deployment.chosen(row.name for row in rows)
    with opened(deployment, members, verb) as session:
        crew = session.crew
        standing = _standing(crew, {member.name for member in members})
        todo = [member for member in members if _wants(verb, standing[member.name], member.name)]
        _check(crew, verb, todo, standing)
        if todo:
            settle_jobs(crew, [row for row in rows if row.name in {member.name for member in todo}], jobs, verb)
            context.confirm(f"{verb.capitalize()} the runtimes of {', '.join(member.name for member in todo)}?")
        with screen([member.name for member in members]) as live:
            session.show(live)
            for member in todo:  # the server is first: the spec's order
                crew.interrupts.check()
                _one(crew, verb, member, standing[member.name])
        return {member.name: _told(verb, standing[member.name], changed=member in todo) for member in members}


def _wants(verb: str, standing: Standing, name: str) -> bool:
    """Whether anything is to be done on a machine. Raises RefusedError: no runtime to go back to."""
    if verb == "upgrade":
        return standing.outdated
    if standing.note.back is None or standing.before is None:
        raise RefusedError(
            "has no runtime to go back to",
            participant=name,
            why="it was not upgraded since it was installed"
            if standing.note.back is None
            else "its environment is gone",
            next_step="pip install the wanted fedspan here, then: fedspan upgrade",
        )
    return True


def _mine() -> Abilities:
    from fl_runtime.status import abilities

    return Abilities.read(abilities())


def _then(verb: str, standing: Standing) -> Abilities:
    """What would run after it."""
    if verb == "upgrade":
        return _mine()
    assert standing.before is not None, "checked before"
    return standing.before


def _told(verb: str, standing: Standing, changed: bool) -> dict[str, Any]:
    def words(abilities: Abilities | None, bundle: str) -> str:
        return f"fedspan {abilities.version if abilities else 'of unknown version'} ({bundle[:8]})"

    now = words(standing.now, standing.present)
    if not changed:
        return {"from": now, "to": now, "changed": False}
    back = standing.note.back
    then = standing.bundle if verb == "upgrade" or back is None else back.bundle
    return {"from": now, "to": words(_then(verb, standing), then), "changed": True}


def _standing(crew: Crew, names: set[str]) -> dict[str, Standing]:
    """What runs on the named participants' machines, however far they came, and on all others that work."""
    rows = {
        row.name: row
        for row in crew.deployment.ledger.participants()
        if row.target != "kit" and row.address and (row.name in names or row.phase in ("started", "registered"))
    }
    members = [member for name, member in crew.deployment.members.items() if name in rows]
    found, errors = crew.each(members, lambda member: _look(crew, rows[member.name]))
    for error in errors.values():
        raise error
    return found


def _look(crew: Crew, row: Row) -> Standing:
    with log_in(_reach(crew, row), crew.interrupts, setting("SSH_DEADLINE")) as machine:
        service = Service(machine)
        note = service.started()

        def abilities(venv: str) -> Abilities | None:
            done = machine.run_privileged([f"{venv}/bin/python", "-m", "fl_runtime", "version"], check=False)
            return Abilities.read(json.loads(done.stdout)) if done.status == 0 else None

        bundle = build_bundle(Target.of(machine.facts())).tree
        before = abilities(note.back.venv) if note.back else None
        return Standing(abilities(machine.path(VENV)), before, note, service.answers(), bundle)


def _check(crew: Crew, verb: str, todo: Iterable[Member], standing: dict[str, Standing]) -> None:
    """Versions: everybody as it would be afterwards, those included whose owners run them."""
    changed = {member.name: member for member in todo}
    for name, member in changed.items():
        check_schema(name, member.role, standing[name].now, _then(verb, standing[name]))
    after = {name: _then(verb, one) if name in changed else one.now for name, one in standing.items()}
    sites = (server_says(crew) or {}).get("sites") or {}
    for name, site in sites.items():
        if name not in after and site.get("protocol"):
            after[name] = Abilities(str(site["version"]), site["protocol"], site["protocol"], {})
    check_protocols({name: one for name, one in after.items() if one is not None}, verb)


def _one(crew: Crew, verb: str, member: Member, standing: Standing) -> None:
    """One machine, until its site is registered again."""
    row = crew.deployment.ledger.participant(member.name)
    assert row is not None, "it was chosen from the ledger"
    reach = _reach(crew, row)
    try:
        if verb == "upgrade":
            endpoint = None
            if member.role == "site":
                known = server_endpoint(crew.deployment, crew.deployment.addresses())
                endpoint = known or Kit.open(member.kit).endpoint().server
            ledger = crew.deployment.ledger
            end, idle_s = expiry_of(ledger, member.name), idle_of(ledger, member.name)
            install_and_start(crew, member, reach, Start(endpoint, labels(crew, member), end, idle_s))
        else:
            crew.screen.phase(member.name, "starting", "the runtime before")
            with log_in(reach, crew.interrupts, setting("SSH_DEADLINE")) as machine:
                back = standing.note.back
                assert back is not None, "checked before"
                present = standing.note.launch or back
                Service(machine).start(replace(present, bundle=back.bundle, venv=back.venv))
        told = _told(verb, standing, changed=True)
        crew.deployment.ledger.record(member.name, "started", detail=f"{verb}: {told['from']} -> {told['to']}")
        crew.screen.phase(member.name, "started")
        server = crew.deployment.ledger.participant("server")
        if member.role == "site" and server is not None and server.target != "kit" and server.address:
            wait_for(crew, _reach(crew, server), [Awaited(member.name, reach)])
    except BaseException as error:
        crew.failed(member.name, error)
        raise


def _reach(crew: Crew, row: Row) -> Reach:
    return reach_of(row, crew.deployment.state_dir / "ssh")
