"""A plan for people: one table of participants, what changes and why, what will be open from where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deployer.engine_events import Action
from deployer.plan import ParticipantPlan, Plan
from stacks.extras import HOURS_A_MONTH

if TYPE_CHECKING:
    from rich.console import RenderableType

VERBS: tuple[Action, ...] = ("create", "update", "replace", "delete")


def changes_in_words(part: ParticipantPlan) -> str:
    """`14 to create`, `1 to update, 1 to replace`, `no change`, or the note."""
    words = [f"{count} to {verb}" for verb in VERBS if (count := part.count(verb))]
    return ", ".join(words) or part.note or "no change"


def price_in_words(part: ParticipantPlan) -> tuple[str, str]:
    """What machine, disks and address list at together: an hour, and a month."""
    if not part.size:
        return "", ""
    if part.total_usd_hour is None or part.usd_month is None:
        return "unknown", "unknown"
    return f"${part.total_usd_hour:.3f}", f"${part.usd_month:.0f}"


def disks_in_words(part: ParticipantPlan) -> str:
    """`64+32 GiB`: the system's disk and the one with the runtime's state."""
    return f"{part.os_disk_gib}+{part.state_disk_gib} GiB" if part.os_disk_gib else ""


def place_in_words(part: ParticipantPlan) -> str:
    """The region with its zone, or with the zones that offer the size."""
    if part.zone:
        return f"{part.place} {part.zone}"
    ends = [zone.removeprefix(part.place) for zone in part.zones]
    return f"{part.place} ({'|'.join(ends)})" if ends else part.place


def summary(plan: Plan) -> str:
    """One line: how much changes and what it costs."""
    if not plan.changes:
        return "nothing to change"
    totals = [f"{count} to {verb}" for verb in VERBS if (count := sum(part.count(verb) for part in plan.participants))]
    return ", ".join(totals)


def price_line(plan: Plan) -> str:
    """What everything lists at together, an hour and a month, with the date of the prices; traffic comes on top."""
    priced = [part for part in plan.participants if part.usd_hour is not None]
    machines = sum(1 for part in plan.participants if part.size)
    if not machines:
        return "no machines in a cloud"
    total = plan.total_usd_hour
    if total is None:
        return "list price: unknown for one of the sizes; the clouds' price pages say"
    dates, regions, sources = (
        ", ".join(sorted({str(getattr(part, name)) for part in priced} - {""})) or "unknown"
        for name in ("as_of", "price_region", "price_source")
    )
    return (
        f"list price: ${total:.3f} an hour, ${total * HOURS_A_MONTH:.0f} a month, for {machines} "
        f"machine{'s' if machines > 1 else ''} with disks and address (as of {dates}; traffic comes on top)\n"
        f"  it is the price in {regions}, other regions differ; source: {sources}"
    )


def render(plan: Plan, verbose: bool = False) -> Iterator[RenderableType]:
    """What to print, piece by piece."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("participant", "target", "region", "size", "GPU", "disks"):
        table.add_column(heading, no_wrap=True)
    table.add_column("changes")
    for heading in ("$/h", "$/month"):
        table.add_column(heading, justify="right")
    for part in plan.participants:
        what = (part.size, part.gpus, disks_in_words(part), changes_in_words(part))
        table.add_row(part.name, part.target, place_in_words(part), *what, *price_in_words(part))
    yield table
    for part in plan.participants:
        if part.steps and part.note:
            yield f"  {part.name} {part.note}"
        for step in part.steps:
            if verbose or step.action in ("replace", "delete") or (step.action == "update" and len(part.steps) < 12):
                why = f" because of {', '.join(step.reasons)}" if step.reasons else ""
                yield f"  {part.name}: {step.action} {step.title}{why}"
    yield price_line(plan)
    yield from opened(plan)
    yield from (f"{part.name} uses {part.uses}" for part in plan.participants if part.uses)
    yield from (f"{part.name} {part.idle}" for part in plan.participants if part.idle)
    yield from (
        f"{part.name} deallocates itself: its machine gets an identity that may turn this one machine on and off"
        for part in plan.participants
        if part.self_deallocate
    )
    yield from (f"torch on {part.name}: {part.torch}" for part in plan.participants if part.torch)
    for note in plan.notes:
        yield f"note: {note}"


def opened(plan: Plan) -> Iterator[str]:
    """What will be open from where; one line for each port of each participant."""
    for part in plan.participants:
        ports: dict[int, list[str]] = {}
        for opening in part.openings:
            who = "" if opening.pending else f" ({opening.who})"
            ports.setdefault(opening.port, []).append(f"{opening.source}{who}")
        for port, sources in ports.items():
            yield f"open on {part.name}: port {port} from {', '.join(sources)}"
