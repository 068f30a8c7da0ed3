"""`down`: fetch finished results, take everything down, then ask the clouds whether anything is left.

It works from the ledger, not from the spec: what was deployed is taken down, whatever the spec says today. Kits, CA and
ledger stay.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer.checkpoint import cloud_resources
from deployer.crew import Crew, together
from deployer.deployment import Deployment
from deployer.drain import jobs_on, server_says
from deployer.errors import CloudError, HostKeyError, UnreachableError, UsageError
from deployer.expiry import set_expiry
from deployer.idle import set_idle
from deployer.ledger import NOTHING_THERE, STOPPED, Ledger, Row
from deployer.machine_run import log_in
from deployer.member import Member
from deployer.reach import reach_of
from deployer.recover import free_stack, settle_stack
from deployer.results import check_idle, fetch, running
from deployer.settings import setting


def member_of(row: Row, kits_dir: Path) -> Member:
    """A participant as the ledger remembers it."""
    outputs = row.outputs
    return Member(
        name=row.name,
        role="server" if row.role == "server" else "site",
        target=row.target,
        kit=kits_dir / row.name,
        region=row.region,
        zone=row.zone,
        size=row.size,
        account=outputs.get("account") or None,
        profile=outputs.get("profile") or None,
        subscription=outputs.get("subscription") or None,
        tenant=outputs.get("tenant") or None,
        host=row.address if row.target == "host" else None,
        user=row.ssh_user,
        ssh_port=row.ssh_port,
        jump=outputs.get("jump") or None,
        agent=bool(outputs.get("agent")),
    )


def deployed(ledger: Ledger, names: Iterable[str]) -> list[Row]:
    """The rows to take down: the named ones, or all of which something may be there.

    Raises:
        UsageError: a name that the ledger does not know.
    """
    rows = {row.name: row for row in ledger.participants()}
    names = list(names)
    for name in names:
        if name not in rows:
            known = ", ".join(rows) or "nobody"
            raise UsageError("not deployed", participant=name, why=f"the ledger knows {known}", next_step=known)
    return [row for row in rows.values() if (not names or row.name in names) and row.phase not in NOTHING_THERE]


@dataclass
class Taken:
    """What a `down` did: resources deleted and wanted to be, where results lie, who said that nothing is left."""

    deleted: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    results: list[Path] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@dataclass
class Down:
    """One `down` of some participants."""

    crew: Crew
    rows: list[Row]
    kits_dir: Path
    results_dir: Path
    forget_hosts: bool = False
    """A machine that was there before us and can't be reached is given up: what is on it stays."""
    taken: Taken = field(default_factory=Taken, init=False)
    _worlds: dict[str, tuple[Any, Any]] = field(default_factory=dict, init=False)

    @property
    def deployment(self) -> Deployment:
        """What is being taken down."""
        return self.crew.deployment

    # -- jobs ---------------------------------------------------------------------------------------------------
    def jobs(self, abort: bool, discard: bool, told: Any) -> None:
        """Abort what runs (if asked to), fetch what is finished.

        Raises:
            RefusedError: a job runs.
            JobError: a result could not be fetched.
        """
        row = self.deployment.ledger.participant("server")
        status = server_says(self.crew)
        if status is None:
            ours = row is not None and row.target != "kit" and row.address and row.phase not in NOTHING_THERE
            if row is not None and ours and row.phase == STOPPED:
                told("the server is off: no results can be fetched from it (fedspan start server turns it on)")
            elif ours:
                told("the server does not answer: no results can be fetched from it")
            return
        jobs = list(status.get("jobs") or [])
        if all(one.role == "site" for one in self.rows):  # jobs in which none of these sites takes part go on
            touched = {job for one in self.rows for job in jobs_on(status, one.name, one.role)}
            untouched = set(running(jobs)) - touched
            jobs = [job for job in jobs if job["id"] not in untouched]
        to_abort = check_idle(jobs, abort)
        if not jobs or (discard and not to_abort):
            return
        lead = next((path for path in self.deployment.leads if (path / "startup").is_dir()), None)
        if lead is None:
            return
        from fl_runtime.admin import Session

        with Session(lead) as session:
            for job in to_abort:
                session.abort(job)
                told(f"job {job} aborted")
            if not discard:
                self.taken.results = fetch(session, jobs, self.results_dir, told)

    # -- taking down --------------------------------------------------------------------------------------------
    def destroy(self) -> Taken:
        """Delete everything, check with the clouds, delete what is left, check again.

        Raises:
            What went wrong, of all participants together; something that is left is a CloudError that says what.
        """
        members = [member_of(row, self.kits_dir) for row in self.rows]
        _, errors = self.crew.each(members, self._guarded)
        if self.crew.interrupts.stopping.is_set():
            raise self.crew.interrupts.stopped()
        if errors:
            raise together(errors, len(members))
        if not deployed(self.deployment.ledger, []):
            self.deployment.keys.destroy()
        return self.taken

    def _guarded(self, member: Member) -> None:
        try:
            self._one(member)
        except BaseException as error:
            self.crew.failed(member.name, error)
            raise

    def _one(self, member: Member) -> None:
        if member.target == "host":
            self._leave_host(member)
        elif member.cloud:
            self._destroy_stack(member)
        row = self.deployment.ledger.participant(member.name)
        if row is not None and row.address:
            self.deployment.keys.unpin(row.address, row.ssh_port or 22)
        self.deployment.keys.forget_host(member.name)
        set_expiry(self.deployment.ledger, member.name, None)
        set_idle(self.deployment.ledger, member.name, None)
        self.deployment.ledger.record(member.name, "down", outputs={}, address=None)
        self.crew.screen.phase(member.name, "down")

    def _leave_host(self, member: Member) -> None:
        """A machine that was there before us: stop the runtime, remove what we put there."""
        from deployer.bootstrap import runtime_remove

        row = self.deployment.ledger.participant(member.name)
        assert row is not None, "it is in the ledger, or it would not be taken down"
        self.crew.screen.phase(member.name, "stopping")
        reach = reach_of(row, self.deployment.state_dir / "ssh")
        try:
            with log_in(reach, self.crew.interrupts, setting("SSH_DEADLINE")) as machine:
                runtime_remove(machine)
        except (UnreachableError, HostKeyError) as error:
            if not self.forget_hosts:
                gone = f"if it is gone for good: fedspan down {member.name} --forget-hosts"
                error.next_step = f"{error.next_step}\n  {gone}" if error.next_step else gone
                raise
            self.crew.screen.line(f"{member.name}: {error.what}; forgotten, with what may still run at {row.address}")

    def _destroy_stack(self, member: Member) -> None:
        engine = self.crew.engine(member)
        assert engine is not None, "only a participant in a cloud has a stack"
        assert member.cloud is not None, "checked by the caller"
        name, ledger = member.name, self.deployment.ledger
        with self.crew.slot():
            for text in free_stack(self.crew, name):
                self.crew.screen.line(f"{name}: {text}")
            access = self.deployment.realm.access(member.cloud, member)
            told, refresh, _ = settle_stack(self.crew, name, member.cloud, member, access)
            for text in told:
                self.crew.screen.line(f"{name}: {text}")
            self.crew.interrupts.check()
            self.taken.expected[name] = len(cloud_resources(engine.state()))
            self.crew.screen.phase(name, "deleting")
            ledger.begin_operation(name)
            gone = engine.destroy(refresh=refresh)
            self.taken.deleted[name] = len(gone)
            # before the look: what that finds belongs to no operation
            ledger.end_operation(name)
            self._check(member, access)

    def _check(self, member: Member, access: Any) -> None:
        """Nothing of it may be left: asked of the cloud itself, past the engine.

        Raises:
            CloudError: something is; its message says what.
        """
        from deployer.settle import Whose, delete_all, find_all

        assert member.cloud is not None, "only a participant in a cloud has something there"
        self.crew.screen.phase(member.name, "checking", f"asking {member.cloud}")
        world = self.deployment.realm.world(member.cloud, member, access)
        whose = Whose(self.deployment.federation, self.deployment.ledger.deployment(), member.name)
        found = find_all(world, whose)
        if found:
            self.crew.screen.line(f"{member.name}: deleting {len(found)} resources that no stack knew of")
            delete_all(world, found)
        until = time.monotonic() + setting("GONE_DEADLINE")
        while found := find_all(world, whose):  # a volume is `deleting` for a while
            if time.monotonic() > until:
                break
            self.crew.interrupts.wait(setting("GONE_INTERVAL"))
        self.taken.asked.append(f"{member.cloud} {member.region}")
        if found:
            raise CloudError(
                f"{len(found)} resources are left",
                participant=member.name,
                why=", ".join(one.title for one in found),
                next_step="fedspan down tries again",
            )


def without_spec(deployment: Deployment, rows: Iterable[Row], kits_dir: Path) -> Deployment:
    """The deployment with exactly the participants that the ledger remembers."""
    return replace(deployment, members={row.name: member_of(row, kits_dir) for row in rows})
