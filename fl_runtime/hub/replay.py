"""What a job's process is told and records so that, started again, it goes the same way."""

from __future__ import annotations

from typing import Any

from fl_runtime.hub.state import Call, StateStore
from fl_runtime.names import prelude

_OUTGROWN = -2  # the round under which a mark of the job is kept as a call


def taken_order(store: StateStore, job: str, round_: int) -> list[list[Any]]:
    """[call index, site] of each result of an unfinished round in the order in which it was taken; site None: the
    call's closing, where it mattered between others."""
    order: list[list[Any]] = [
        [index, site] for number, index, site in store.accepted_order(job, round_ - 1) if number == round_
    ]
    closings = []
    index = 0
    while (call := store.call(job, round_, index)) is not None:
        if call.state != "open" and call.outcome.get("place") is not None:
            closings.append((int(call.outcome["place"]), index))
        index += 1
    for place, index in sorted(closings):
        order.insert(place, [index, None])
    return order


def orders(store: StateStore, job: str, boundary: int) -> list[tuple[int, list[list[Any]]]]:
    """(round, what was taken) for what a job's process does after the last boundary."""
    return [(round_, taken_order(store, job, round_)) for round_ in (prelude(boundary), boundary + 1)]


def sites(store: StateStore, key: tuple[str, int, int], known: list[str], now: list[str]) -> dict[str, Any]:
    """Who takes part: what was recorded at this place; what the process knows, if something else was done here; else
    the present, recorded if it is news."""
    recorded = store.call(*key)
    if recorded is not None:
        changed = recorded.name == "(sites)"
        return {"changed": changed, "sites": list(recorded.targets) if changed else known}
    if known == now:
        return {"changed": False, "sites": now}
    call = Call(*key, name="(sites)", targets=tuple(now), digest="", meta={}, payload=None, settings={})
    with store.tx():
        store.open_call(call, [])
        store.close_call(call, {})
    return {"changed": True, "sites": now}


def taken(store: StateStore, job: str, round_: int, index: int, place: int) -> None:
    """A closing was taken as the `place`-th event of its round."""
    call = store.call(job, round_, index)
    if call is not None and call.state != "open" and call.outcome.get("place") != place:
        store.close_call(call, {**call.outcome, "place": place})


def record(store: StateStore, job: str, round_: int, index: int, name: str, value: Any) -> Any:
    """What was recorded there before, else the value, from now on."""
    known = store.call(job, round_, index)
    if known is not None:
        return known.meta.get("value")
    call = Call(job, round_, index, f"({name})", (), "", {"value": value}, None, {})
    with store.tx():
        store.open_call(call, [])
        store.close_call(call, {})
    return value


def outgrown(store: StateStore, job: str) -> bool:
    """The job's journal was dropped: it can't be replayed."""
    return store.call(job, _OUTGROWN, 0) is not None


def set_outgrown(store: StateStore, job: str) -> None:
    record(store, job, _OUTGROWN, 0, "outgrown", True)
