"""`fedspan plan`: what `up` would do, what it costs, and what will be open from where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployer.cli import context


def plan(
    participants: Annotated[list[str] | None, typer.Argument(help="Whom to plan for (default: everybody).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Save it; `up --plan FILE` applies exactly it.")] = None,
    max_hourly_cost: Annotated[float | None, typer.Option(help="Refuse what lists above so many dollars.")] = None,
    allow_unknown_price: Annotated[bool, typer.Option(help="With a cap: unknown prices count nothing.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look at the clouds first, as up --refresh does.")] = False,
) -> None:
    """Show what `up` would do, what it costs, and what will be open from where.

    Makes and changes nothing. Only what an interrupted command left behind in a cloud is settled first, as by `up`:
    what no stack knows is deleted.
    """
    from deployer.cost import Cap, check
    from deployer.session import lead_session, tell_plan

    cap = Cap(max_hourly_cost, allow_unknown_price)
    with lead_session("plan", participants or [], refresh=refresh) as session:
        made, findings = session.preflight(session.plan())
    if out is not None:
        made.save(out)
    if context.options().json:
        context.emit({**made.document(), "checks": [one.document() for one in findings]})
    else:
        tell_plan(made, findings)
    check(made, cap)
    if out is not None and not context.options().json:
        context.say(f"saved in {out}; fedspan up --plan {out} applies it")
