"""The end of a site's machine, and the site's end of work: when, kept in the ledger, told to the machine over SSH.

AWS terminates a machine with an end when it powers itself off: nothing of it bills any more but its address and its
state volume. Azure goes on billing one that is only powered off: there the last day is also given to the cloud's own
daily shutdown, which deallocates (`azure_schedule`). Whether it stands is told by the stack's output `deallocate_at`.
With `self_deallocate` the machine asks Azure itself (`deployer.deallocation`), and needs no schedule.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deployer.expiry_units import NAME, daily, service_text, stamp, timer_text
from deployer.ledger import Ledger
from deployer.machine_timer import drop_timer, put_timer
from deployer.spent import billed_until

if TYPE_CHECKING:
    from deployer.deallocation import Deallocation
    from deployer.ssh import Machine

DAY_S = 86400.0


def expiry_of(ledger: Ledger, name: str) -> float | None:
    """When a participant's machine ends, as the ledger has it; None: never."""
    known = ledger.meta(f"expires:{name}")
    return float(known) if known else None


def set_expiry(ledger: Ledger, name: str, at: float | None) -> None:
    """Note when it ends; None: never. An end that is over becomes an event: the machine's bill ended there."""
    row, known = ledger.participant(name), expiry_of(ledger, name)
    over = billed_until(row, known, told=end_told(ledger, name)) if row is not None else None
    if over is not None and over <= time.time():
        ledger.event(name, "stopped", detail="it ended itself", at=over)
    ledger.set_meta(f"expires:{name}", "" if at is None else str(int(at)))


def note_told(ledger: Ledger, name: str, at: float | None) -> None:
    """The machine itself knows its end now; None: it knows of none."""
    if (ledger.meta(f"told:{name}") or "") != (told := "" if at is None else str(int(at))):
        ledger.set_meta(f"told:{name}", told)


def end_told(ledger: Ledger, name: str) -> bool:
    """Whether the machine knows the end that the ledger has for it: else it goes on until somebody tells it."""
    known = ledger.meta(f"expires:{name}")
    return bool(known) and ledger.meta(f"told:{name}") == known


def azure_schedule(at: float | None, now: float) -> str | None:
    """`HHMM` (UTC) for Azure's daily shutdown, armed for the last day only: on any other it would end the machine
    a day, or more, too early. Pure."""
    return daily(at) if at is not None and now < at <= now + DAY_S - 120 else None


def apply_expiry(machine: Machine, at: float | None, how: Deallocation | None = None) -> bool:
    """Make the machine end at that time (or not any more), `how` it does; whether anything changed there."""
    if at is None:
        return drop_timer(machine, NAME)
    return put_timer(machine, NAME, timer_text(at), service_text(at, how.argv if how else ()), how)


def in_words(
    at: float | None, now: float, target: str, machine: str = "", *, armed: bool = False, told: bool = True
) -> str:
    """What `status` says of a machine's end. Pure.

    `machine`: what its cloud says of it, where that was asked. `armed`: its bill ends then, too. `told`: it knows its
    end itself.
    """
    from deployer.status import ago

    if at is None:
        return ""
    if not told and not armed:
        still = "is" if at > now else "was"
        return f"{still} to end at {stamp(at)}, but its machine was not told: it runs on\n  next: fedspan up tells it"
    bills = "address and volume go on costing until fedspan down"
    if at <= now:
        return _over(stamp(at), target, machine) or f"ended itself at {stamp(at)}; {bills}"
    if target == "azure" and not armed:
        unless = "unless fedspan up or extend runs on its last day"
        return f"powers itself off in {ago(at - now)} ({stamp(at)}); Azure bills it on until fedspan stop, {unless}"
    return f"ends itself in {ago(at - now)} ({stamp(at)}); then {bills}"


def _over(when: str, target: str, machine: str) -> str:
    """What is not as it should be of a machine whose end has passed; "" where nothing is known to be. Pure."""
    if machine == "running":
        return f"should have ended itself at {when}, and runs\n  next: fedspan stop turns it off"
    if target == "azure" and machine == "stopped":
        return f"powered itself off at {when}; Azure bills it on\n  next: fedspan stop, or fedspan down"
    if target == "azure" and not machine:
        return f"ended itself at {when}; fedspan status --refresh tells whether Azure bills it on"
    return ""
