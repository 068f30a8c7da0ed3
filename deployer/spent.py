"""What a machine has cost so far, at list price: the hours that it was on. Disks and addresses are not in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.expiry_units import daily
from deployer.ledger_rows import Event, Row

_OFF = frozenset({"stopped", "down"})
_ON = frozenset({"machine", "started"})


def seconds_on(events: Iterable[Event], name: str, since: float, now: float, end: float | None = None) -> float:
    """Seconds from `since` (when it was deployed) to `now` during which a participant's machine was not off.

    `end`: when it ended itself, if it did; a start after that counts again.
    """
    changes = [(event.at, event.phase) for event in events if event.participant == name and event.at >= since]
    if end is not None and since <= end < now:
        changes.append((end, "stopped"))
    changes.sort(key=lambda change: change[0])  # an end is noted when it is known, which is later
    total, began = 0.0, since
    on = True
    for at, phase in changes:
        if on and phase in _OFF:
            total, on = total + at - began, False
        elif not on and phase in _ON:
            began, on = at, True
    return total + (now - began if on else 0.0)


def billed_until(row: Row, expires: float | None, *, told: bool) -> float | None:
    """When the bill of a machine that ends itself at `expires` ends; None: not by itself.

    `told`: the machine knows of it. One that was never logged in to since it was made runs on.
    AWS terminates it. Azure goes on billing a machine that has powered itself off, unless its stack has given it an
    identity by which it deallocates itself (its output `self_deallocate`), or has made Azure's own daily shutdown for
    this end (`deallocate_at`).
    """
    if expires is None or row.target != "azure" or row.outputs.get("self_deallocate"):
        return expires if told else None
    return expires if row.outputs.get("deallocate_at") == daily(expires) else None
