"""What a machine has cost so far, at list price: the hours that it was on. Disks and addresses are not in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.ledger_rows import Event

_OFF = frozenset({"stopped", "down"})


def seconds_on(events: Iterable[Event], name: str, since: float, now: float) -> float:
    """Seconds from `since` (when it was deployed) to `now` during which a participant's machine was not off."""
    total, began = 0.0, since
    on = True
    for event in events:
        if event.participant != name or event.at < since:
            continue
        if on and event.phase in _OFF:
            total, on = total + event.at - began, False
        elif not on and event.phase == "started":
            began, on = event.at, True
    return total + (now - began if on else 0.0)
