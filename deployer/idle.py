"""Machines that turn themselves off when no job runs: the timer there, what the ledger knows of it, and the words.

AWS stops a machine that powers itself off (a spot machine, or one with an end, it terminates): nothing of it bills but
its address and its disks. Azure goes on billing one that is only powered off, so there a machine deallocates itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployer.errors import FedspanError
from deployer.ledger import NOTHING_THERE, STOPPED, Ledger, Row
from deployer.machine_timer import drop_timer, put_timer

if TYPE_CHECKING:
    from deployer.deallocation import Deallocation
    from deployer.look import CloudView
    from deployer.ssh import Machine

_BY_ITSELF = "it turned itself off"
_OFF = {"aws": frozenset({"stopped", "gone"}), "azure": frozenset({"deallocated"})}
"""What a cloud says of a machine that turned itself off and bills no more."""


def idle_of(ledger: Ledger, name: str) -> int | None:
    """After how many seconds without a job a participant's machine turns itself off; None: never."""
    known = ledger.meta(f"idle:{name}")
    return int(known) if known else None


def set_idle(ledger: Ledger, name: str, idle_s: int | None) -> None:
    """Note it; None: never."""
    if idle_of(ledger, name) != idle_s:
        ledger.set_meta(f"idle:{name}", "" if idle_s is None else str(idle_s))


def apply_idle(machine: Machine, idle_s: int | None, how: Deallocation | None = None) -> bool:
    """Make the machine turn itself off after so long without a job (or not any more), `how` it does; whether anything
    changed there.
    """
    from deployer.idle_units import NAME, service_text, timer_text

    if idle_s is None:
        return drop_timer(machine, NAME)
    return put_timer(machine, NAME, timer_text(), service_text(idle_s, how.argv if how else ()), how)


@contextmanager
def held(machine: Machine, idle_s: int | None) -> Iterator[None]:
    """Keep a machine from turning itself off while a command works on it, however long that takes.

    Args:
        machine: logged in to.
        idle_s: after how long it turns itself off; None: never, then nothing is done.
    """
    if idle_s is None:
        yield
        return
    from deployer.idle_units import HOLD_PATH, RENEW_S

    path, over = machine.path(HOLD_PATH), threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_S):
            with contextlib.suppress(FedspanError):
                machine.run_privileged(["touch", path])

    machine.run_privileged(["touch", path])
    threading.Thread(target=renew, name=f"hold of {machine.name}", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(FedspanError):  # what went wrong is told; the hold ends by itself
            machine.run_privileged(["rm", "-f", path])


def note_off(ledger: Ledger, row: Row) -> bool:
    """A machine with `idle_stop` was seen to be off: the ledger takes its bill to have ended now, where it ran before.

    When it went off no cloud tells in a way to rely on, so its cost may be told as higher than it was, never lower.
    """
    idle_s = idle_of(ledger, row.name)
    if idle_s is None or row.phase in NOTHING_THERE | {STOPPED}:
        return False
    ledger.record(row.name, STOPPED, detail=f"{_BY_ITSELF}: no job ran for {span(idle_s)}")
    return True


def note_seen(ledger: Ledger, views: Mapping[str, CloudView]) -> list[str]:
    """Whose machines their clouds say to be off, and the ledger did not know it."""
    rows = {row.name: row for row in ledger.participants()}
    found = [rows[name] for name, view in views.items() if view.machine in _OFF.get(rows[name].target, ())]
    return [row.name for row in found if note_off(ledger, row)]


def turned_itself_off(row: Row) -> bool:
    """Whether it is known to be off by itself, and not by `fedspan stop`. Pure."""
    return row.phase == STOPPED and row.detail.startswith(_BY_ITSELF)


def in_words(idle_s: int | None, phase: str, runtime: str, *, by_itself: bool) -> str:
    """What `status` says of it. `by_itself`: it is off, and turned itself off. Pure."""
    if idle_s is None or phase in NOTHING_THERE:
        return ""
    if phase == STOPPED:
        return "off, as no job ran; nothing but fedspan up or start turns it on" if by_itself else ""
    rule = f"turns itself off when no job ran for {span(idle_s)}"
    return f"{rule}; it may have: fedspan status --refresh asks its cloud" if runtime.startswith("lost") else rule


def promise(idle_s: int | None, cloud: str, *, terminated: bool) -> str:
    """What `plan` says of it. Pure.

    Args:
        idle_s: seconds without a job; None: never.
        cloud: `aws` or `azure`.
        terminated: AWS terminates it, as it is a spot machine or has an end.
    """
    if idle_s is None:
        return ""
    does = "Azure deallocates it" if cloud == "azure" else "AWS terminates it" if terminated else "AWS stops it"
    kept = "address and state volume" if terminated and cloud == "aws" else "address and disks"
    rule = f"turns itself off when no job ran for {span(idle_s)}"
    return f"{rule}: {does}, {kept} stay and go on costing; fedspan up brings it back"


def span(seconds: int) -> str:
    """`2 h`, `90 min`, `3 d`: exactly, as the spec says it. Pure."""
    for size, word in ((86400, "d"), (3600, "h")):
        if seconds % size == 0:
            return f"{seconds // size} {word}"
    return f"{seconds / 60:.0f} min"
