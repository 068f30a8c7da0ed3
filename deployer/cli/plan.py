"""`fedspan plan`: what `up` would do, what it costs, and what will be open from where. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployer.cli import context


def plan(
    participants: Annotated[list[str] | None, typer.Argument(help="Whom to plan for (default: everybody).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Save it; `up --plan FILE` applies exactly it.")] = None,
) -> None:
    """Show what `up` would do, what it costs, and what will be open from where. Changes nothing."""
    from deployer.plan_view import render, summary
    from deployer.session import lead_session

    with lead_session("plan", participants or []) as session:
        made = session.plan()
    if out is not None:
        made.save(out)
    if context.options().json:
        context.emit(made.document())
        return
    for piece in render(made, context.options().verbose):
        context.say(piece)
    context.say(summary(made))
    if out is not None:
        context.say(f"saved in {out}; fedspan up --plan {out} applies it")
