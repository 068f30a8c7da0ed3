"""A runtime's log, from the journal where systemd runs it, from its files elsewhere; the lines look the same.

The runtime starts each line with its time in ISO 8601 (UTC). So `--since` means the same in both places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

from deployer.service import LOG, Service
from deployer.ssh.machine import Machine
from deployer.ssh.session import OnLine, StreamName
from deployer.unit_file import UNIT_NAME


@dataclass(frozen=True)
class LogRequest:
    """Which lines.

    Attributes:
        tail: the last so many, None for all.
        since: none older (aware).
        follow: stay, and go on with new ones.
    """

    tail: int | None = 200
    since: datetime | None = None
    follow: bool = False


def log_argv(request: LogRequest, *, journal: bool, path: str) -> list[str]:
    """The command that prints a log. Pure."""
    if journal:
        argv = ["journalctl", "--unit", UNIT_NAME, "--output", "cat", "--no-pager"]
        argv += ["--lines", "all" if request.tail is None else str(request.tail)]
        if request.since is not None:
            argv += ["--since", f"@{request.since.timestamp():.0f}"]
        return argv + (["--follow"] if request.follow else [])
    # The tail is counted after the filter by time, so the file is read whole then; rotation bounds its size.
    lines = "+1" if request.tail is None or request.since is not None else str(request.tail)
    return ["tail", "-n", lines, *(["-F"] if request.follow else []), path]


def read_log(machine: Machine, request: LogRequest, on_line: OnLine | None = None) -> str:
    """The log's lines as text, or each to `on_line` as it comes, and nothing kept, where they have no bound.

    Raises:
        MachineError: there is no log: the runtime was never started there.
    """
    service = Service(machine)
    seen = _Since(request.since)
    kept: list[str] = []
    live = on_line if request.follow or request.tail is None else None

    def each(stream: StreamName, line: str) -> None:
        if stream == "stderr":
            return  # tail's remarks about rotation
        if seen.passes(line):
            if live is not None:
                live(stream, line)
            else:
                kept.append(line)

    argv = log_argv(request, journal=service.systemd, path=machine.path(LOG))
    done = machine.run_privileged(argv, on_line=each, timeout_s=None if request.follow else 120, check=False)
    if done.status != 0 and not kept and not request.follow:
        raise machine.failed(done)
    lines = kept if request.tail is None else kept[-request.tail :]
    if on_line is not None and live is None:
        for line in lines:
            on_line("stdout", line)
    return "".join(f"{line}\n" for line in lines)


class _Since:
    """Lets lines pass from a time on; a line without a time belongs to the one before it."""

    def __init__(self, since: datetime | None) -> None:
        self._since = since
        self._open = since is None

    def passes(self, line: str) -> bool:
        if self._since is not None and (match := re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", line)):
            stamp = match[0].replace(" ", "T").split(".")[0]
            when = datetime.fromisoformat(stamp).replace(tzinfo=timezone.utc)
            self._open = when >= self._since.replace(microsecond=0)
        return self._open
