"""`fedspan upgrade` and `rollback`: the runtime on running machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context
from deployer.errors import UsageError

if TYPE_CHECKING:
    from deployer.drain import Jobs

Drain = Annotated[bool, typer.Option("--drain", help="Wait until no job runs there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Interrupt jobs: they go on afterwards, nothing is lost.")]
Names = Annotated[list[str] | None, typer.Argument(help="Whose runtimes (default: all that we deployed).")]


def what_of_jobs(drain: bool, resume: bool) -> Jobs:
    """What is to become of jobs that run. Raises UsageError for both at once."""
    if drain and resume:
        raise UsageError(
            "--drain and --resume don't go together", next_step="--drain waits for jobs, --resume interrupts them"
        )
    return "drain" if drain else "resume" if resume else "refuse"


def upgrade(participants: Names = None, drain: Drain = False, resume: Resume = False) -> None:
    """Bring this fedspan's runtime to machines, the server first, one after the other. The one before is kept."""
    from deployer.session_upgrade import bring

    _tell(bring("upgrade", participants or [], what_of_jobs(drain, resume)))


def rollback(participants: Names = None, drain: Drain = False, resume: Resume = False) -> None:
    """Put machines back to the runtime that they had before the last upgrade."""
    from deployer.session_upgrade import bring

    _tell(bring("rollback", participants or [], what_of_jobs(drain, resume)))


def _tell(done: dict[str, dict[str, Any]]) -> None:
    if context.options().json:
        context.emit({"event": "result", "runtimes": done})
        return
    for name, one in done.items():
        same = "nothing to do: it runs " + one["to"]
        context.say(f"{name}: " + (f"{one['from']} -> {one['to']}" if one["changed"] else same))
