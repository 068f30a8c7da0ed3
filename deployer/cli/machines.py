"""`fedspan logs`, `ssh` and `cp`: what one does on a participant's machine by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployer.cli import context
from deployer.errors import UsageError

if TYPE_CHECKING:
    from deployer.ssh import Machine

CONNECT_DEADLINE_S = 20.0
"""The machine was up when it was deployed: by hand one does not want to wait for minutes."""


def logs(
    participant: Annotated[str, typer.Argument(help="Whose log.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay, and show new lines.")] = False,
    tail: Annotated[int | None, typer.Option(help="The last so many lines (default 200; with --since all).")] = None,
    since: Annotated[str | None, typer.Option(help="10m, 2h, 1d ago, or a time in ISO 8601.")] = None,
) -> None:
    """The runtime's log on a participant's machine."""
    import sys
    from datetime import datetime, timezone

    from deployer.bootstrap import runtime_log
    from deployer.durations import parse_since

    start = parse_since(since, datetime.now(timezone.utc)) if since else None
    lines = tail if tail is not None or since else 200

    def on_line(stream: str, line: str) -> None:
        if context.options().json:
            context.emit({"participant": participant, "line": line})
        else:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    with _connected(participant) as machine:
        runtime_log(machine, on_line, tail=lines, since=start, follow=follow)


def ssh(ctx: typer.Context, participant: Annotated[str, typer.Argument(help="Whose machine.")]) -> None:
    """A shell, or one command after `--`, on a participant's machine."""
    from deployer.ssh.terminal import interact

    argv = list(ctx.args)
    if argv[:1] == ["--"]:
        argv = argv[1:]
    with _connected(participant) as machine:
        status = interact(machine, argv)
    if status != 0:
        raise typer.Exit(status if status > 0 else 255)


def cp(
    source: Annotated[str, typer.Argument(help="PATH here, or PARTICIPANT:PATH.")],
    destination: Annotated[str, typer.Argument(help="PARTICIPANT:PATH, or PATH here.")],
) -> None:
    """Copy a file or a folder to or from a participant's machine. What arrives is whole, or not there at all."""
    from deployer.copies import parse_side, receive, send
    from deployer.idle import held, idle_of
    from deployer.ledger import Ledger

    here, there = parse_side(source), parse_side(destination)
    if (here.participant is None) == (there.participant is None):
        raise UsageError(
            "one side of a copy is here, the other PARTICIPANT:PATH",
            next_step="fedspan cp digits.csv site-1:/srv/data/digits/, or fedspan cp site-1:/srv/data/x .",
        )
    participant = here.participant or there.participant or ""
    idle_s = idle_of(Ledger(context.workspace().ledger_path), participant)
    with _connected(participant) as machine, held(machine, idle_s):
        if there.participant is not None:
            done = send(machine, here.path, there.path)
        else:
            done = receive(machine, here.path, there.path)
    if context.options().json:
        context.emit({"source": source, "destination": destination, "files": done.sent_files, "bytes": done.sent_bytes})
    elif done.changed:
        context.say(f"{done.sent_files} file{'' if done.sent_files == 1 else 's'}, {done.sent_bytes} bytes")
    else:
        context.say("nothing to do: the same is already there")


def _connected(participant: str) -> Machine:
    from deployer.reach import reach

    return reach(context.workspace(), participant).connect(CONNECT_DEADLINE_S)
