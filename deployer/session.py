"""One command of the lead: load the spec, take the lock, plan, show, ask, do, tell. What `plan` and `up` share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployer import realm as realms
from deployer.backend import check_backend
from deployer.cli import context
from deployer.cost import Cap
from deployer.cost import check as check_cost
from deployer.crew import Crew
from deployer.deployment import Deployment, lead
from deployer.errors import RefusedError, UsageError
from deployer.expiry_units import stamp
from deployer.interrupts import LEADS_NEXT, OWNERS_NEXT, Interrupts
from deployer.ledger import NOTHING_THERE, Ledger
from deployer.live import Screen, Silent, screen
from deployer.lockfile import exclusive
from deployer.machine_run import confirm_host_keys
from deployer.member import Member
from deployer.plan import Plan, read
from deployer.plan_same import check_same
from deployer.plan_view import render, summary
from deployer.preflight.model import Finding, refuse
from deployer.runlog import RunLog
from deployer.stack_work import Outcome
from deployer.state_loss import check_state
from deployer.up import Up
from startup_kits.spec import load_spec

if TYPE_CHECKING:
    from startup_kits.spec import FederationSpec
    from startup_kits.workspace import Workspace


@dataclass
class Session:
    """A deployment under its lock, ready to plan and to act."""

    deployment: Deployment
    members: list[Member]
    crew: Crew
    up: Up

    def plan(self) -> Plan:
        """What `up` would do."""
        return self.up.plan()

    def preflight(self, plan: Plan) -> tuple[Plan, tuple[Finding, ...]]:
        """The checks of what the plan would create or resize; the plan with the zones that offer each size."""
        if not plan.changes:
            return plan, ()
        from deployer.preflight.run import Candidate, check
        from deployer.preflight.standing import creates, standing

        candidates = []
        for shown in plan.participants:
            part = self.up.parts.get(shown.name)
            if part is None or part.args is None or not shown.steps:
                continue
            stands = standing(shown.steps, part.state)
            candidates.append(Candidate(part.member, part.args, part.access, creates(shown.steps), stands))
        report = check(self.deployment, candidates, self.up.allow_fallback)
        parts = (replace(part, zones=report.zones.get(part.name, ())) for part in plan.participants)
        return replace(plan, participants=tuple(parts)), report.findings

    def show(self, screen_: Screen) -> None:
        """From now on progress goes to another screen."""
        self.crew.screen = screen_
        screen_.log(str(self.crew.log.folder))


def provision_if_needed(workspace: Workspace, spec: FederationSpec, passphrase_file: Path | None = None) -> str | None:
    """Make the kits that are missing; returns what was done, in words, or None."""
    from startup_kits.passphrase import PassphraseSource
    from startup_kits.provision import provision

    source = PassphraseSource.for_terminal(workspace.passphrase_path, passphrase_file)
    result = provision(workspace, spec, source)
    done = [*result.created, *result.updated]
    return f"provisioned: {', '.join(done)}; CA {result.ca_fingerprint}" if done else None


@contextmanager
def opened(deployment: Deployment, members: list[Member], verb: str, *, stacks_lost: bool = False) -> Iterator[Session]:
    """Hold the deployment's lock and handle Ctrl-C for as long as a command works on it.

    `stacks_lost`: no engine is going to be used, so that neither passphrase nor backend matter.

    Raises:
        BusyError: another command holds it.
        RealmError: the ledger belongs to another realm, or the stacks lie in another backend.
    """
    with ExitStack() as stack:
        stack.enter_context(exclusive(deployment.state_dir, verb))
        deployment.bind()
        stack.enter_context(noted(deployment.ledger, verb, members))
        for note in deployment.notes:
            tell(note)
        if not stacks_lost and deployment.home.ensure():
            tell(
                f"the stacks' secrets are encrypted with {deployment.home.passphrase_path}: "
                "back it up, without it they can't be changed or taken down"
            )
        log = RunLog(deployment.state_dir, verb)
        stack.callback(log.close)
        interrupts = Interrupts(OWNERS_NEXT if deployment.by == "owner" else LEADS_NEXT)
        stack.enter_context(interrupts.handling())
        crew = Crew(deployment, Silent(), interrupts, log, verb)
        if not stacks_lost:
            check_backend(crew)

        def on_interrupt(count: int, names: list[str]) -> None:
            what = f"the engines of {', '.join(names)} finish what runs and save" if names else "stopping"
            crew.screen.line(f"interrupted: {what}" if count == 1 else "interrupted again: the engines stop at once")

        interrupts.on_interrupt = on_interrupt
        yield Session(deployment, members, crew, Up(crew, members))


@contextmanager
def noted(ledger: Ledger, verb: str, members: list[Member]) -> Iterator[None]:
    """Write into the ledger who begins which command for whom, and how it ends. A `plan` is not noted: what
    it settles of an interrupted command tells of itself."""
    ledger.verb = verb
    if verb == "plan":
        yield
        return
    ledger.event("", "begun", detail=", ".join(member.name for member in members))
    try:
        yield
    except BaseException as error:
        ledger.event("", "failed", detail=str(getattr(error, "what", "") or type(error).__name__).splitlines()[0])
        raise
    ledger.event("", "done")


def tell(text: str) -> None:
    """A line for people; an event with `--json`."""
    if context.options().json:
        context.emit({"event": "message", "text": text})
    else:
        context.say(text)


@contextmanager
def lead_session(
    verb: str, names: list[str], passphrase_file: Path | None = None, refresh: bool = False
) -> Iterator[Session]:
    """The session of a federation's lead for the named participants; with `refresh` the engines look first."""
    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    realm = realms.current()
    workspace.ensure()
    if verb == "up" and (done := provision_if_needed(workspace, spec, passphrase_file)):
        tell(done)
    deployment = lead(workspace, spec, realm, complete=verb == "up")
    members = _with_server(deployment, deployment.chosen(names))
    with opened(deployment, members, verb) as session:
        session.up.planner.refresh = refresh
        yield session


def deploy(
    names: list[str],
    plan_file: Path | None,
    passphrase_file: Path | None,
    cap: Cap | None = None,
    *,
    allow_fallback: bool = False,
    refresh: bool = False,
    ttl_s: float | None = None,
) -> Outcome:
    """`fedspan up` of the lead: plan, show, check, ask, apply, tell."""
    saved = read(plan_file) if plan_file is not None else None
    if saved is not None and not names:
        names = [part.name for part in saved.participants]
    with lead_session("up", names, passphrase_file, refresh) as session:
        session.up.allow_fallback = allow_fallback
        session.up.capped = cap is not None and cap.usd_hour is not None
        if ttl_s is not None:
            session.up.planner.ends = ends_after(session.members, names, ttl_s)
        check_ends(session)
        plan = session.plan()
        if saved is not None:
            check_same(saved, plan)
        return carry_out(session, plan, agreed=saved is not None, cap=cap)


def ends_after(members: list[Member], names: list[str], ttl_s: float) -> dict[str, float | None]:
    """When the chosen sites in clouds end. Raises UsageError: there is none."""
    sites = [member for member in members if member.role == "site" and member.cloud]
    sites = [member for member in sites if not names or member.name in names]
    if not sites:
        raise UsageError(
            "--ttl is for sites in a cloud",
            why="the server never ends by itself, and other machines are not ours to turn off",
            next_step="fedspan up SITE --ttl 8h",
        )
    return {member.name: time.time() + ttl_s for member in sites}


def check_ends(session: Session) -> None:
    """Refuse to bring up a machine whose time is over: it would end at once. Raises RefusedError."""
    for member in session.members:
        end = session.up.planner.end_of(member)
        if end is not None and end <= time.time():
            raise RefusedError(
                "its time to live is over",
                participant=member.name,
                why=f"it was to end at {stamp(end)}",
                next_step=f"fedspan up {member.name} --ttl 8h brings it back for 8 hours, "
                f"fedspan extend {member.name} never takes the end away",
            )


def carry_out(session: Session, plan: Plan, *, agreed: bool = False, cap: Cap | None = None) -> Outcome:
    """Show a plan, check its cost, ask, make it come true, tell how it ended."""
    plan, findings = session.preflight(plan)
    if context.options().json:
        context.emit({"event": "plan", **plan.document(), "checks": [one.document() for one in findings]})
    else:
        tell_plan(plan, findings)
    for part in session.up.parts.values():
        check_state(part, session.deployment.ledger.events(part.member.name))
    check_cost(plan, cap or Cap())
    refuse(findings)
    if plan.changes and not agreed:
        context.confirm(question(plan))
    confirm_host_keys(session.crew, session.members)
    with screen([member.name for member in session.members]) as live:
        session.show(live)
        outcome = session.up.apply(plan)
    conclude(outcome)
    return outcome


def tell_plan(plan: Plan, findings: Iterable[Finding]) -> None:
    """Show a plan, and what its checks found."""
    from deployer.preflight import view

    for piece in render(plan, context.options().verbose):
        context.say(piece)
    context.say(summary(plan))
    if findings := list(findings):
        context.say(view.summary(findings))
        for line in view.lines(findings, context.options().verbose):
            context.say(line)


def question(plan: Plan) -> str:
    """What is asked before anything is made."""
    destroyed = sum(part.count("delete") + part.count("replace") for part in plan.participants)
    warning = f", {destroyed} of them deleted or replaced" if destroyed else ""
    return f"Change {plan.changes} resources{warning}?"


def conclude(outcome: Outcome) -> None:
    """The last lines of an `up`."""
    if context.options().json:
        context.emit(
            {
                "event": "result",
                "changed": outcome.changed,
                "pushed": outcome.pushed,
                "registered": outcome.registered,
                "awaited": outcome.awaited,
                "endpoint": outcome.endpoint,
                "nothing_changed": outcome.nothing_changed,
            }
        )
        return
    awaited = [name for name in outcome.awaited if name not in outcome.registered]
    renewed = [name for name, changed in outcome.pushed.items() if changed]
    told = f"{sum(outcome.changed.values())} resources changed"
    if outcome.nothing_changed:
        told = "nothing changed"
    elif not any(outcome.changed.values()):
        told = f"no resource changed; renewed on the machines of {', '.join(renewed)}"
    sites = f"registered: {', '.join(outcome.registered)}" if outcome.registered else "no site is registered yet"
    context.say(f"{told}; {sites}" + (f"; awaited: {', '.join(awaited)}" if awaited else ""))
    if outcome.endpoint:
        context.say(f"server: {outcome.endpoint}")
    sites_awaited = [name for name in awaited if name != "server"]
    if sites_awaited:
        where = f" --server {outcome.endpoint}" if outcome.endpoint else ""
        folders = ", ".join(f"kits/{name}" for name in sites_awaited)
        context.say(f"awaited owners get their folder ({folders}) and type ./start.sh{where}")


def _with_server(deployment: Deployment, members: Iterable[Member]) -> list[Member]:
    """The chosen participants, and the server with them when it is deployed: its rules follow the sites' addresses."""
    chosen = list(members)
    server, row = deployment.server, deployment.ledger.participant("server")
    if server is None or server in chosen or not server.cloud or row is None or row.phase in NOTHING_THERE:
        return chosen
    return [server, *chosen]
