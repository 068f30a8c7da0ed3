"""`fedspan stop` and `start`: machines off and on, keeping addresses and disks."""

from __future__ import annotations

from typing import Annotated

import typer

from deployer.cli import context
from deployer.cli.upgrade import Drain, Resume, what_of_jobs
from deployer.errors import UsageError

Names = Annotated[list[str] | None, typer.Argument(help="Whose machines (default: all that we deployed).")]


def stop(
    participants: Names = None,
    drain: Drain = False,
    resume: Resume = False,
    idle: Annotated[str | None, typer.Option(help="Only if no job ran for so long (30m, 2h).")] = None,
) -> None:
    """Turn machines off: they keep addresses and disks (which go on costing), and cost no hours."""
    from deployer.durations import parse_duration
    from deployer.session_power import turn

    idle_s = parse_duration(idle) if idle else None
    if idle and idle_s is None:
        raise UsageError(f"--idle {idle} is no time", next_step="fedspan stop --idle 2h --yes")
    _tell(turn("stop", participants or [], what_of_jobs(drain, resume), idle_s))


def start(participants: Names = None) -> None:
    """Turn machines on again, start their runtimes, wait until the sites have registered."""
    from deployer.session_power import turn

    _tell(turn("start", participants or []))


def _tell(states: dict[str, str]) -> None:
    if context.options().json:
        context.emit({"event": "result", "states": states})
    else:
        for name, state in states.items():
            context.say(f"{name}: {state}")
