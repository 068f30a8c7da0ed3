"""`fedspan events`: who did what when, from the ledger. Asks no cloud and no machine."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from deployer.cli import context


def events(
    participant: Annotated[str | None, typer.Argument(help="Only this participant's.")] = None,
    tail: Annotated[int, typer.Option(help="The last so many (0: all).", min=0)] = 50,
    since: Annotated[str | None, typer.Option(help="10m, 2h, 1d ago, or a time in ISO 8601.")] = None,
) -> None:
    """Who did what when: commands, resources, phases; oldest first."""
    from deployer.durations import parse_since
    from deployer.errors import UsageError
    from deployer.ledger import Ledger

    ledger = Ledger(context.workspace().ledger_path)
    start = parse_since(since, datetime.now(timezone.utc)).timestamp() if since else 0.0
    found = ledger.events(participant, start)
    if participant and not found and ledger.participant(participant) is None:
        known = ", ".join(row.name for row in ledger.participants()) or "nobody"
        raise UsageError(
            "not in the ledger", participant=participant, why=f"it knows {known}", next_step="fedspan events"
        )
    documents = [document(event) for event in (found[-tail:] if tail else found)]
    if context.options().json:
        for one in documents:
            context.emit(one)
        return
    if not documents:
        context.say("nothing has happened yet\n  next: fedspan up")
        return
    context.say(table(documents))


def document(event: Any) -> dict[str, Any]:
    """An event as JSON; `participant` is null for a whole command's beginning and end."""
    at = datetime.fromtimestamp(event.at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "at": at,
        "who": event.who or None,
        "command": event.verb or None,
        "participant": event.participant or None,
        "what": event.phase,
        "resource": event.resource or None,
        "detail": event.detail or None,
    }


def table(documents: list[dict[str, Any]]) -> Any:
    """For the screen."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("at (UTC)", "who", "command", "participant", "what", "of"):
        shown.add_column(heading, no_wrap=heading != "of")
    for one in documents:
        at = one["at"][:19].replace("T", " ")
        of = "; ".join(text for text in (one["resource"], one["detail"]) if text)
        shown.add_row(at, one["who"] or "", one["command"] or "", one["participant"] or "", one["what"], of)
    return shown
