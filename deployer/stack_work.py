"""One participant's stack while `up` works on it: leave where it was, get an address, then rules and machine.

What the engine did is recorded at once, and what a failed create may have made is settled at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deployer.attempts import Attempts
from deployer.checkpoint import has_machine, stack_outputs, tells_its_machine
from deployer.crew import Crew
from deployer.engine import check_agreed, only_rules
from deployer.errors import CapacityError, Interrupted
from deployer.expiry import note_told
from deployer.host_keys import was_rotated
from deployer.machine_run import reach_cloud
from deployer.member import Member
from deployer.part import Part
from deployer.placement import ON_DEMAND, moved
from deployer.plan import VM_TYPES, ParticipantPlan
from deployer.plan_make import Planner
from deployer.programs import load_program
from deployer.reach import Reach
from deployer.recover import settle_stack
from stacks.images import image_for
from stacks.names import Stage


@dataclass
class Outcome:
    """What an `up` did: resources changed, participants whose machine was changed, the server's last word."""

    changed: dict[str, int] = field(default_factory=dict)
    pushed: dict[str, list[str]] = field(default_factory=dict)
    registered: list[str] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)
    endpoint: str | None = None
    readdressed: list[str] = field(default_factory=list)
    """Who was made in another region after the addresses were known: the peers' rules follow."""

    @property
    def nothing_changed(self) -> bool:
        """Whether everything was as it should be."""
        return not any(self.changed.values()) and not any(self.pushed.values())


@dataclass
class StackWork:
    """Brings the stacks of one `up` to where its plan wants them. Called from a thread for each participant."""

    crew: Crew
    planner: Planner
    parts: dict[str, Part]
    outcome: Outcome
    allow_fallback: bool = False
    """Whether a participant may be made in another region of its `fallback_regions`."""
    capped: bool = False
    """Whether the plan was held against a cap: then nobody is moved to a dearer size."""

    def leave_and_allocate(self, member: Member, shown: ParticipantPlan | None) -> None:
        """Pass 1: leave another cloud or region; network and static address where there is none."""
        part = self.parts[member.name]
        if member.cloud is None:
            return None
        if part.moved_from:
            self._leave(part, part.moved_from)
        if part.has_address or has_machine(part.state):
            return None  # never a program smaller than the state: the engine would delete the rest
        attempts = self._attempts(part, regions_only=True)
        while True:
            try:
                return self._allocate(part)
            except CapacityError as error:
                self._next(part, attempts, error)

    def _allocate(self, part: Part) -> None:
        part.args = self.planner.arguments(part)
        # before the engine is let loose: whatever happens then, `down` knows where to look
        self._record(part, "allocating", {})
        outputs = self._engine_up(part, "address")
        part.preview = None
        self.planner.addresses[part.member.name] = str(outputs["public_ip"])
        self._record(part, "address", outputs)

    # -- where there is room ------------------------------------------------------------------------------------
    def _attempts(self, part: Part, *, regions_only: bool = False) -> Attempts:
        return Attempts(self.crew, part, self.allow_fallback, capped=self.capped, regions_only=regions_only)

    def _next(self, part: Part, attempts: Attempts, error: CapacityError) -> None:
        """Move a participant to the next place after the cloud had no room at this one; what was made goes.

        Raises:
            CapacityError: the same one, where no place is left or a machine stood here before.
        """
        place = attempts.after(error)
        name, before = part.member.name, part.member
        self.crew.screen.line(f"{name}: no room for {attempts.told[-1]}; trying {attempts.title(place)}")
        self.crew.deployment.ledger.event(name, "moved", detail=attempts.title(place))
        if place.region != before.region:
            self._leave(part, before.region or "")
            self.outcome.readdressed.append(name)
        else:
            # back to network and address, which stay: a machine that failed holds its disk, which holds its zone
            part.preview = None
            self._engine_up(part, "address")
        part.member = moved(before, place)
        part.state, part.preview, part.args = None, None, None
        self.crew.deployment.keys.renew_host(name)
        self._note_place(part)
        if place.region != before.region:
            assert before.cloud is not None, "only a participant in a cloud has a place"
            part.access = self.crew.deployment.realm.access(before.cloud, part.member)
            if not attempts.regions_only:
                self._allocate(part)

    def _note_place(self, part: Part) -> None:
        """Before anything is made there: an `up` that is cut off goes on at this place, not at the one before."""
        row, member = self.crew.deployment.ledger.participant(part.member.name), part.member
        assert row is not None, "an attempt has been recorded already"
        self.crew.deployment.ledger.record(
            member.name,
            row.phase,
            region=member.region,
            zone=member.zone,
            size=member.size,
            address=row.address if member.region == row.region else None,
            outputs={**row.outputs, "market": ON_DEMAND if member.market_chosen else ""},
            usd_hour=member.offer().usd_hour,
        )

    def _leave(self, part: Part, whence: str) -> None:
        """The stack lies elsewhere: take it down there."""
        engine = self.crew.engine(part.member)
        assert engine is not None, "only a participant in a cloud can move"
        name = part.member.name
        self.crew.screen.phase(name, "leaving", whence)
        with self.crew.slot():
            self.crew.deployment.ledger.begin_operation(name)
            gone = engine.destroy()
            self.crew.deployment.ledger.end_operation(name)
        self.outcome.changed[name] = self.outcome.changed.get(name, 0) + len(gone)
        self.crew.deployment.keys.forget_host(name)
        self.planner.addresses.pop(name, None)  # released: it is somebody else's soon
        part.state, part.preview, part.refresh = None, None, False

    def _engine_up(self, part: Part, stage: Stage, *, shown: bool = True) -> dict[str, Any]:
        """One `up` of the engine, `shown` as the participant's phase; what a failed create left is settled at once."""
        engine = self.crew.engine(part.member)
        assert engine is not None, "only a participant in a cloud has an engine"
        name = part.member.name
        self.crew.interrupts.check()
        with self.crew.slot():
            if shown:
                self.crew.screen.phase(name, "allocating" if stage == "address" else "making")
            self.crew.deployment.ledger.begin_operation(name)
            load_program(part.member.cloud or "")
            try:
                agreed = part.preview if stage == "full" else None
                with self.crew.starts.begin(part.member):
                    outputs, steps = engine.up(part.program(stage), agreed, refresh=part.refresh)
            except Interrupted:
                raise
            except BaseException:
                self._settle_now(part, engine.failed)
                raise
            self.crew.deployment.ledger.end_operation(name)
        self.outcome.changed[name] = self.outcome.changed.get(name, 0) + len(steps)
        return outputs

    def _settle_now(self, part: Part, failed: list[str]) -> None:
        """A create that failed may have made something all the same: look at once, not only at the next `up`."""
        try:
            told = settle_stack(
                self.crew, part.member.name, part.member.cloud or "", part.member, part.access, failed
            ).told
        except Exception as error:
            # the failure itself is told; that this look failed too is noted, and the next command looks again
            self.crew.log.file(part.member.name).write(f"settling after the failure failed too: {error}\n")
            return
        for text in told:
            self.crew.screen.line(f"{part.member.name}: {text}")

    # -- rules and machine --------------------------------------------------------------------------------------
    def make_machine(self, part: Part, shown: ParticipantPlan | None) -> Reach:
        """Pass 2: rules and machine, at the first place that has room; returns how to log in."""
        attempts = self._attempts(part)
        while True:
            try:
                return self._make_machine(part, shown)
            except CapacityError as error:
                self._next(part, attempts, error)
                shown = None

    def rules_again(self, part: Part, *, beside: bool = False) -> None:
        """Another participant has another address now: nothing but rules may change.

        `beside`: the participant's installation goes on meanwhile, and is what is shown.

        Raises:
            RefusedError: the engine wants more than that.
        """
        engine = self.crew.engine(part.member)
        assert engine is not None, "only a participant in a cloud has rules"
        part.state = engine.state()
        part.openings = self.planner.openings(part.member)
        part.args = self.planner.arguments(part)
        with self.crew.slot():
            part.preview = self.planner.preview(part, engine, "agreed.plan")
        only_rules(part.member.name, part.preview.steps)
        if part.preview.steps:
            self._record(part, "machine" if beside else "started", self._engine_up(part, "full", shown=not beside))

    def _make_machine(self, part: Part, shown: ParticipantPlan | None) -> Reach:
        name = part.member.name
        self.planner.check_way(part.member)
        before = part.args
        keys = self.crew.deployment.keys
        # a machine in the place of one that is gone (it reached its end, somebody deleted it) is another one too
        if shown is not None and (shown.replaces_machine or (_makes_machine(shown) and was_rotated(keys, name))):
            keys.renew_host(name)
        if shown is not None and (shown.replaces_machine or _makes_machine(shown)):
            note_told(self.crew.deployment.ledger, name, None)
        part.openings = self.planner.openings(part.member)
        part.args = self.planner.arguments(part)
        if part.holds_something and (part.preview is None or part.args != before):
            engine = self.crew.engine(part.member)
            assert engine is not None, "a participant in a cloud has an engine"
            with self.crew.slot():
                part.preview = self.planner.preview(part, engine, "agreed.plan")
        if part.preview is not None:
            check_agreed(name, part.preview.steps, shown.steps if shown else ())
        unchanged = part.preview is not None and not part.preview.steps and not part.refresh
        assert part.args is not None, "made above"
        assert part.member.cloud is not None, "only a participant in a cloud has a machine of a stack"
        if unchanged and tells_its_machine(part.state, image_for(part.member.cloud, part.args).family):
            outputs = self._known_outputs(part)
        else:
            outputs = self._engine_up(part, "full")
            self._record(part, "machine", outputs)
            part.made = True
        self.crew.deployment.keys.settle_host(name)
        user = str(outputs.get("ssh_user") or part.args.ssh_user)
        return reach_cloud(self.crew, part.member, str(outputs["public_ip"]), part.args.ssh_port, user)

    def _known_outputs(self, part: Part) -> dict[str, Any]:
        (outputs,) = stack_outputs(part.state)
        row, fields = self.crew.deployment.ledger.participant(part.member.name), self._fields(part, outputs)
        if row is None:
            self._record(part, "machine", outputs)
        elif any(getattr(row, name) != value for name, value in fields.items()):  # the spec's own: `jump`, `profile`
            self.crew.deployment.ledger.record(row.name, row.phase, detail=row.detail, **fields)
        return outputs

    def _record(self, part: Part, phase: str, outputs: dict[str, Any]) -> None:
        self.crew.deployment.ledger.record(part.member.name, phase, **self._fields(part, outputs))

    def _fields(self, part: Part, outputs: dict[str, Any]) -> dict[str, Any]:
        """What the ledger keeps of a participant whose stack has these outputs, by column."""
        member = part.member
        assert part.args is not None, "args are made before the engine runs"
        offer = member.offer()
        address = outputs.get("public_ip")
        return {
            "role": member.role,
            "target": member.target,
            "region": member.region,
            "zone": member.zone,
            "size": offer.size,
            "address": str(address) if address else None,
            "ssh_port": part.args.ssh_port,
            "ssh_user": str(outputs.get("ssh_user") or part.args.ssh_user),
            "outputs": {
                **{name: value for name, value in outputs.items() if isinstance(value, (str, int, float))},
                "account": member.account or getattr(part.access, "account_id", None) or "",
                "profile": member.profile or "",
                "subscription": getattr(part.access, "subscription_id", None) or "",
                "tenant": member.tenant or "",
                "market": ON_DEMAND if member.market_chosen else "",
                "jump": member.jump or "",
                "ssh_access": part.args.ssh_access,
                "federation": part.args.federation,
                "deployment": part.args.deployment,
            },
            "usd_hour": offer.usd_hour,
        }


def _makes_machine(shown: ParticipantPlan) -> bool:
    """Whether its machine is made: the first one, or one in the place of one that is gone. Pure."""
    return any(step.action == "create" and step.type in VM_TYPES for step in shown.steps)
