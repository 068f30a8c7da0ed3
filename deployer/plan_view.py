"""A plan for people: one table of participants, what changes and why, what will be open from where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deployer.engine_events import Action
from deployer.plan import ParticipantPlan, Plan

if TYPE_CHECKING:
    from rich.console import RenderableType

VERBS: tuple[Action, ...] = ("create", "update", "replace", "delete")


def changes_in_words(part: ParticipantPlan) -> str:
    """`14 to create`, `1 to update, 1 to replace`, `no change`, or the note."""
    words = [f"{count} to {verb}" for verb in VERBS if (count := part.count(verb))]
    return ", ".join(words) or part.note or "no change"


def price_in_words(part: ParticipantPlan) -> str:
    """The list price an hour, with what it is the price of."""
    if not part.size:
        return ""
    return f"${part.usd_hour:.3f}" if part.usd_hour is not None else "unknown"


def summary(plan: Plan) -> str:
    """One line: how much changes and what it costs."""
    if not plan.changes:
        return "nothing to change"
    totals = [f"{count} to {verb}" for verb in VERBS if (count := sum(part.count(verb) for part in plan.participants))]
    return ", ".join(totals)


def price_line(plan: Plan) -> str:
    """What the machines list at together, with the date of the prices; disks, addresses and traffic come on top."""
    priced = [part for part in plan.participants if part.usd_hour is not None]
    machines = sum(1 for part in plan.participants if part.size)
    if not machines:
        return "no machines in a cloud"
    if plan.usd_hour is None:
        return "list price: unknown for one of the sizes; the clouds' price pages say"
    dates, regions, sources = (
        ", ".join(sorted({str(getattr(part, name)) for part in priced} - {""})) or "unknown"
        for name in ("as_of", "price_region", "price_source")
    )
    return (
        f"list price: ${plan.usd_hour:.3f} an hour for {machines} machine{'s' if machines > 1 else ''}"
        f" (as of {dates}; disks, addresses and traffic come on top)\n"
        f"  it is the price in {regions}, other regions differ; source: {sources}"
    )


def render(plan: Plan, verbose: bool = False) -> Iterator[RenderableType]:
    """What to print, piece by piece."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("participant", "target", "region", "size", "GPU"):
        table.add_column(heading, no_wrap=True)
    table.add_column("changes")
    table.add_column("$/h", justify="right")
    for part in plan.participants:
        place = f"{part.place} {part.zone}".strip() if part.zone else part.place
        row = (part.name, part.target, place, part.size, part.gpus, changes_in_words(part), price_in_words(part))
        table.add_row(*row)
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
