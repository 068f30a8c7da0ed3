"""`extend`: a site's machine ends later (or earlier, or never). Its stack, its timer and the ledger follow."""

from __future__ import annotations

import time

from deployer import realm as realms
from deployer.cli import context
from deployer.deallocation import deallocation_of
from deployer.deployment import Deployment, lead
from deployer.engine import only
from deployer.engine_events import Step
from deployer.errors import RefusedError, UsageError
from deployer.expiry import apply_expiry, expiry_of, note_told, set_expiry
from deployer.expiry_units import parse_ttl, stamp
from deployer.ledger import NOTHING_THERE
from deployer.live import screen
from deployer.machine_run import log_in
from deployer.member import Member
from deployer.plan import VM_TYPES
from deployer.reach import reach_of
from deployer.session import opened, tell
from deployer.settings import setting
from startup_kits.spec import load_spec

NEVER = "never"

_OF_AN_END = {"tags", "tagsAll", "instanceInitiatedShutdownBehavior"}
"""Properties of a machine that its end decides: EC2 is told whether it terminates what powers itself off."""


def is_end(step: Step) -> bool:
    """Whether a step moves a machine's end and nothing else: its tag, and Azure's schedule. Pure."""
    reasons = {reason.partition(".")[0].partition("[")[0] for reason in step.reasons}
    tagged = step.type in VM_TYPES and step.action == "update" and reasons <= _OF_AN_END
    return tagged or step.type == "azure-native:devtestlab:GlobalSchedule"


def new_end(now: float, known: float | None, by: str) -> float | None:
    """The new end: later than the known one, or than now where there was none or it is over. None: never. Pure."""
    if by == NEVER:
        return None
    return max(now, known or now) + parse_ttl(by)


def extend(name: str, by: str) -> float | None:
    """Move the end of a site's machine; returns the new one, None: never.

    Raises:
        UsageError: no such site in a cloud, or no duration.
        RefusedError: it is not deployed, or something else of it has changed in the spec.
    """
    workspace = context.workspace()
    deployment = lead(workspace, load_spec(workspace.spec_path), realms.current())
    (member,) = deployment.chosen([name])
    if member.role != "site" or member.cloud is None:
        raise UsageError("only sites in a cloud have an end", participant=name, next_step="fedspan extend SITE 4h")
    row = deployment.ledger.participant(name)
    if row is None or row.phase in NOTHING_THERE:
        ttl = "" if by == NEVER else f" --ttl {by}"
        raise RefusedError("not deployed", participant=name, next_step=f"fedspan up {name}{ttl}")
    known = expiry_of(deployment.ledger, name)
    end = new_end(time.time(), known, by)
    if known is not None and known <= time.time():
        _after_the_end(deployment, member, known, by)
        return None
    with opened(deployment, [member], "extend") as session:
        up = session.up
        up.planner.ends = {name: end}
        up.planner.final = True
        plan = up.plan()
        only(name, plan.participants[0].steps, is_end, "its end")
        with screen([name]) as live:
            session.show(live)
            # the machine first: whatever fails then, it never lives shorter than was said
            with log_in(reach_of(row, workspace.ssh_dir), session.crew.interrupts, setting("SSH_DEADLINE")) as machine:
                apply_expiry(machine, end, deallocation_of(deployment, member))
            set_expiry(deployment.ledger, name, end)
            note_told(deployment.ledger, name, end)
            deployment.ledger.event(name, "expiry", detail=f"ends {'never' if end is None else by + ' later'}")
            up.rules_only(plan)
    return end


def _after_the_end(deployment: Deployment, member: Member, known: float, by: str) -> None:
    """The machine is off or gone, so nobody can log in to it: the ledger forgets its end, and `up` brings it back.

    Raises:
        RefusedError: another end is wanted, which a machine has to be there for.
    """
    if by != NEVER:
        raise RefusedError(
            "its machine has ended",
            participant=member.name,
            why=f"at {stamp(known)}",
            next_step=f"fedspan up {member.name} --ttl {by} brings it back",
        )
    with opened(deployment, [member], "extend"):
        set_expiry(deployment.ledger, member.name, None)
        deployment.ledger.event(member.name, "expiry", detail="ends never")
    tell(f"{member.name}: its machine ended at {stamp(known)}\n  next: fedspan up {member.name} brings it back")
