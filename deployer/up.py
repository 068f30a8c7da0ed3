"""`up`: from kits to registered participants, in two passes, from whatever an earlier `up` has reached.

Addresses first (only for stacks that have none), because the server's rules need the sites' addresses and the sites'
kits the server's; then rules and machines, each participant pushed and started as soon as its machine is there; then
the wait for registration. Nobody waits for more of the others than it needs: the server's rules for all addresses,
machines for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from deployer.arrivals import Arrivals
from deployer.checkpoint import has_machine
from deployer.crew import Crew, together
from deployer.deployment import Deployment
from deployer.expiry import set_expiry
from deployer.idle import note_off, set_idle
from deployer.ledger import NOTHING_THERE
from deployer.machine_run import Start, install_and_start, labels, reach_host
from deployer.member import Member
from deployer.part import Part
from deployer.plan import ParticipantPlan, Plan
from deployer.plan_make import Planner
from deployer.power import GONE, RUNNING, there
from deployer.prepare import complete, prepare
from deployer.reach import Reach, reach_of
from deployer.register import Awaited, registered, wait_for
from deployer.server_address import server_endpoint, write_endpoints
from deployer.stack_work import Outcome, StackWork
from startup_kits.kit import Kit


@dataclass
class Up:
    """One `up` of some participants."""

    crew: Crew
    members: list[Member]
    allow_fallback: bool = False
    capped: bool = False
    planner: Planner = field(init=False)
    parts: dict[str, Part] = field(default_factory=dict, init=False)
    reaches: dict[str, Reach] = field(default_factory=dict, init=False)
    outcome: Outcome = field(default_factory=Outcome, init=False)
    errors: dict[str, BaseException] = field(default_factory=dict, init=False)
    addressed: Arrivals = field(init=False)
    """Who has an address, or will have none."""

    def __post_init__(self) -> None:
        self.planner = Planner(self.crew.deployment, addresses=self.crew.deployment.addresses())
        self.addressed = Arrivals([member.name for member in self.members], self.crew.interrupts.check)

    @property
    def stacks(self) -> StackWork:
        """What works on the stacks."""
        return StackWork(self.crew, self.planner, self.parts, self.outcome, self.allow_fallback, self.capped)

    @property
    def deployment(self) -> Deployment:
        """What is being deployed."""
        return self.crew.deployment

    # -- the plan -----------------------------------------------------------------------------------------------
    def plan(self) -> Plan:
        """Settle, look, ask the engines; changes nothing but what a crash left behind."""
        self.parts = prepare(self.crew, self.planner, self.members)
        for part in self.parts.values():
            if part.moved_from:
                self.planner.addresses.pop(part.member.name, None)
        complete(self.crew, self.planner, self.parts)
        return self.planner.plan(self.parts)

    # -- doing it -----------------------------------------------------------------------------------------------
    def apply(self, plan: Plan) -> Outcome:
        """Make the plan come true.

        Raises:
            What went wrong, of all participants together; Interrupted after Ctrl-C.
        """
        self.planner.final = True
        for name, at in self.planner.ends.items():
            set_expiry(self.deployment.ledger, name, at)
        if self._teller is None:
            self._endpoint()
        self._guard(self._deploy, plan)
        self._follow_addresses()
        if self.crew.interrupts.stopping.is_set():
            raise self.crew.interrupts.stopped()
        self._await_sites()
        if self.errors:
            raise together(self.errors, len(self.members))
        return self.outcome

    def rules_only(self, plan: Plan) -> None:
        """Bring the stacks up to the plan, and nothing else: no push, no wait. For `allow`."""
        self.planner.final = True
        self._guard(lambda member, shown: self._stack_only(self.parts[member.name], shown), plan)
        if self.errors:
            raise together(self.errors, len(self.members))

    def _stack_only(self, part: Part, shown: ParticipantPlan | None) -> None:
        before = self.deployment.ledger.participant(part.member.name)
        self.stacks.make_machine(part, shown)
        if before is not None:  # its runtime is as it was
            self.deployment.ledger.record(part.member.name, before.phase, detail=before.detail)
        self.planner.keep(part, self.crew.engine(part.member))
        self.crew.screen.phase(part.member.name, "done", "its rules are up to date")

    def _guard(self, work: Callable[[Member, ParticipantPlan | None], None], plan: Plan) -> None:
        """One pass over everybody who has not failed yet."""
        todo = [member for member in self.members if member.name not in self.errors]

        def one(member: Member) -> None:
            try:
                work(member, plan.part(member.name))
            except BaseException as error:
                self.crew.failed(member.name, error)
                raise

        _, errors = self.crew.each(todo, one)
        self.errors.update(errors)

    def _follow_addresses(self) -> None:
        """A site that went to another region, even if it then failed, has no longer the address that is let in."""
        server = self.parts.get("server")
        moved = self.outcome.readdressed
        if not moved or server is None or not server.member.cloud or "server" in self.errors:
            return
        self.crew.screen.line(f"server: lets in the new address of {', '.join(moved)}, and the one before no more")
        _, errors = self.crew.each([server.member], lambda member: self.stacks.rules_again(self.parts[member.name]))
        self.errors.update(errors)
        if not errors:
            self.crew.screen.phase("server", "started", "its rules follow")

    @property
    def _teller(self) -> str | None:
        """After whose address the endpoint is told; None: nobody's of these."""
        return next((member.name for member in self.members if member.role == "server"), None)

    def _endpoint(self) -> None:
        """The server's address goes into every kit here."""
        endpoint = server_endpoint(self.deployment, self.planner.addresses)
        if endpoint is None:
            return
        self.outcome.endpoint = endpoint
        changed = write_endpoints(self.deployment, endpoint)
        if changed:
            self.crew.screen.line(f"server's address {endpoint} written into the kits of {', '.join(changed)}")

    def _deploy(self, member: Member, shown: ParticipantPlan | None) -> None:
        """Both passes of one participant."""
        try:
            self.stacks.leave_and_allocate(member, shown)
            if member.name == self._teller:
                self._endpoint()
        finally:
            self.addressed.arrived(member.name)
        if member.role == "server" and self._stands(member):
            self.addressed.wait_for()  # its rules let them in: once, not twice
        elif member.egress_restricted:
            self.addressed.wait_for("server")  # its rules let it out
        self._machine(member, shown)

    def _machine(self, member: Member, shown: ParticipantPlan | None) -> None:
        """Pass 2: rules and machine, then kit and runtime."""
        if member.target == "kit":
            if self.deployment.ledger.participant(member.name) is None:
                self.deployment.ledger.record(member.name, "awaited", role=member.role, target="kit")
            self.outcome.awaited.append(member.name)
            self.crew.screen.phase(member.name, "awaited", "its owner starts the kit")
            return
        if member.cloud:
            before = self._machine_of(member)
            reach = self.stacks.make_machine(self.parts[member.name], shown)
            member = self.parts[member.name].member  # it may stand elsewhere now
        else:
            reach = reach_host(self.crew, member)
            self._record_host(member, reach)
        self.reaches[member.name] = reach
        if member.cloud:
            self._turn_on(member, stood=self._machine_of(member) == before)
        self.crew.interrupts.check()
        endpoint = None
        if member.role == "site":
            self.addressed.wait_for("server")
            endpoint = self.outcome.endpoint or Kit.open(member.kit).endpoint().server
        set_idle(self.deployment.ledger, member.name, member.idle_stop)
        start = Start(endpoint, labels(self.crew, member), self.planner.end_of(member), member.idle_stop)
        with self._letting_in(member):
            changed = install_and_start(self.crew, member, reach, start)
        self.outcome.pushed[member.name] = changed
        row = self.deployment.ledger.participant(member.name)
        if changed or row is None or row.phase not in ("started", "registered"):
            self.deployment.ledger.record(member.name, "started", detail=", ".join(changed))
        self.crew.screen.phase(member.name, "started")
        self.planner.keep(self.parts[member.name], self.crew.engine(member))

    def _stands(self, member: Member) -> bool:
        """Whether it has a machine already, or none of which a cloud's rules are made here."""
        return not member.cloud or has_machine(self.parts[member.name].state)

    @contextmanager
    def _letting_in(self, member: Member) -> Iterator[None]:
        """Meanwhile the server's rules let in whoever got an address while its machine was made."""
        if member.role != "server" or not member.cloud:
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rules") as beside:
            rules = beside.submit(self._let_in, self.parts[member.name])
            yield
            rules.result()

    def _let_in(self, part: Part) -> None:
        self.addressed.wait_for()
        if self.planner.openings(part.member) != part.openings:
            self.stacks.rules_again(part, beside=True)

    def _machine_of(self, member: Member) -> str:
        """The ID of the machine that the ledger knows; empty where it knows none."""
        row = self.deployment.ledger.participant(member.name)
        return str(row.outputs.get("vm_id") or "") if row is not None else ""

    def _turn_on(self, member: Member, *, stood: bool) -> None:
        """A machine that is off runs again, whoever turned it off: its cloud knows, a phase is soon another one.

        Args:
            stood: it stood before this `up`: of one that was made a moment ago EC2 may know nothing yet.

        Raises:
            CloudError: it is gone, behind the engine's back.
        """
        row = self.deployment.ledger.participant(member.name)
        assert row is not None, "recorded with its machine"
        from deployer.session_power import switch

        power, vm_id = switch(self.crew, member, row)
        state = power.look(vm_id)
        if stood:
            there(state, member.name)
        if state not in (RUNNING, GONE):
            note_off(self.deployment.ledger, row)
            self.crew.screen.phase(member.name, "booting", f"it was {state}")
            power.start(vm_id)
            self.deployment.ledger.record(member.name, "machine", detail="turned on")  # it bills, whatever fails now

    def _record_host(self, member: Member, reach: Reach) -> None:
        row = self.deployment.ledger.participant(member.name)
        outputs = {"key_path": str(reach.key_path), "jump": reach.jump, "agent": reach.agent}
        if row is not None and row.phase not in NOTHING_THERE and row.address == reach.address:
            if dict(row.outputs) != outputs:
                self.deployment.ledger.record(member.name, row.phase, outputs=outputs)
            return
        self.deployment.ledger.record(
            member.name,
            "machine",
            role=member.role,
            target="host",
            address=reach.address,
            ssh_port=reach.port,
            ssh_user=reach.user,
            outputs=outputs,
        )

    # -- registration -------------------------------------------------------------------------------------------
    def _await_sites(self) -> None:
        """Until the server reports every site that was started here."""
        sites = [
            Awaited(member.name, self.reaches[member.name])
            for member in self.members
            if member.role == "site" and member.name in self.reaches and member.name not in self.errors
        ]
        server = self._server_reach()
        if server is None:
            for site in sites:
                self.crew.screen.phase(site.name, "started", "the server is not ours to ask; it registers by itself")
            return
        try:
            status = wait_for(self.crew, server, sites)
        except BaseException as error:
            self.errors.setdefault("server", error)
            return
        self.outcome.registered = sorted(registered(status))
        for name in self.outcome.awaited:
            if name in self.outcome.registered:
                self.crew.screen.phase(name, "registered")
                self.deployment.ledger.record(name, "registered")

    def _server_reach(self) -> Reach | None:
        if "server" in self.errors:
            return None
        if "server" in self.reaches:
            return self.reaches["server"]
        row = self.deployment.ledger.participant("server")
        if row is None or row.target == "kit" or row.phase in NOTHING_THERE or row.address is None:
            return None
        return reach_of(row, self.deployment.state_dir / "ssh")
