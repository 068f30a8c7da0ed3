"""What the screen shows while something long runs: a row for each participant, plain lines, or JSON events.

The same calls serve all three: `phase` when a participant comes to another phase, `resource` while the engine works on
one, `line` for what concerns nobody in particular.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployer.engine_events import Step
from deployer.timing import Timing

if TYPE_CHECKING:
    from rich.console import Console, Group

# the engine's words for a step, without their endings: "creat" + "ing" in rows, "creat" + "ed" in lines
STEMS = {"create": "creat", "update": "updat", "replace": "replac", "delete": "delet", "import": "import"}


class Screen(Protocol):
    """Where progress goes. Called from several threads."""

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """A participant came to a phase."""

    def resource(self, participant: str, state: str, step: Step) -> None:
        """The engine began (`start`), finished (`done`) or failed (`failed`) a step."""

    def line(self, text: str) -> None:
        """Something that concerns nobody in particular."""

    def log(self, folder: str) -> None:
        """Where the logs of this command lie."""

    def end(self) -> None:
        """The work is over: tell where the time went."""


@dataclass
class Silent:
    """Shows nothing; for parts of larger commands and for tests."""

    phases: list[tuple[str, str, str]] = field(default_factory=list)

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """Remembered only."""
        self.phases.append((participant, phase, detail))

    def resource(self, participant: str, state: str, step: Step) -> None:
        """Not shown."""

    def line(self, text: str) -> None:
        """Not shown."""

    def log(self, folder: str) -> None:
        """Not shown."""

    def end(self) -> None:
        """Nothing to tell."""


class Lines:
    """One line for each event, for logs and pipes: elapsed seconds, participant, what happened."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write = write
        self.timing = Timing()
        self._lock = threading.Lock()
        self._phases: dict[str, str] = {}
        self._logs = ""

    def _put(self, text: str) -> None:
        with self._lock:
            self.write(f"{self.timing.elapsed:6.1f}s  {text}")

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """One line for each new phase; what moves within a phase is for screens that can be redrawn."""
        self.timing.phase(participant, phase)
        if self._phases.get(participant) == phase:
            return
        self._phases[participant] = phase
        self._put(f"{participant}: {phase}{f', {detail}' if detail else ''}")

    def resource(self, participant: str, state: str, step: Step) -> None:
        """One line for each finished or failed step, with its seconds where it took any."""
        seconds = self.timing.resource(participant, state, step)
        if state != "start":
            ending = f"{STEMS[step.action]}ed" if state == "done" else "failed"
            took = f" after {seconds:.0f} s" if seconds is not None and seconds >= 1 else ""
            self._put(f"{participant}: {step.title} {ending}{took}")

    def line(self, text: str) -> None:
        """One line."""
        self._put(text)

    def log(self, folder: str) -> None:
        """Told once, with the first thing that happens."""
        self._logs = folder

    def end(self) -> None:
        """Where the time went, and where the logs lie."""
        for text in closing(self.timing, self._logs):
            self._put(text)


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self.timing = Timing()
        self._lock = threading.Lock()
        self._logs = ""

    def _put(self, **event: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps({**event, "elapsed": round(self.timing.elapsed, 2)}) + "\n")
            sys.stdout.flush()

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """`{"event": "phase", …}`."""
        self.timing.phase(participant, phase)
        self._put(event="phase", participant=participant, phase=phase, detail=detail)

    def resource(self, participant: str, state: str, step: Step) -> None:
        """`{"event": "resource", …}`; `seconds` at its end."""
        seconds = self.timing.resource(participant, state, step)
        self._put(
            event="resource",
            participant=participant,
            state=state,
            action=step.action,
            type=step.type,
            name=step.name,
            **({} if seconds is None else {"seconds": round(seconds, 2)}),
        )

    def line(self, text: str) -> None:
        """`{"event": "message", …}`."""
        self._put(event="message", text=text)

    def log(self, folder: str) -> None:
        """Told at the end."""
        self._logs = folder

    def end(self) -> None:
        """`{"event": "timing", …}`: seconds of each phase, the slowest step, the folder of the logs."""
        slowest = self.timing.slowest()
        self._put(
            event="timing",
            phases={
                name: {phase: round(seconds, 2) for phase, seconds in phases.items()}
                for name, phases in self.timing.phases().items()
            },
            slowest=None if slowest is None else {**vars(slowest), "seconds": round(slowest.seconds, 2)},
            logs=self._logs or None,
        )


@dataclass
class _Row:
    phase: str = "waiting"
    detail: str = ""
    resources: int = 0


class LiveTable:
    """A row for each participant, redrawn in place; below it the slowest step and where the logs lie."""

    def __init__(self, console: Console, participants: list[str]) -> None:
        from rich.live import Live

        self.console = console
        self.timing = Timing()
        self.rows = {name: _Row() for name in participants}
        self._lock = threading.Lock()
        self._logs = ""
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=False)

    def render(self) -> Group:
        """The table and the lines below it."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("participant", "phase"):
            table.add_column(heading, no_wrap=True)
        table.add_column("for", justify="right")
        table.add_column("resource", no_wrap=True, overflow="ellipsis")
        table.add_column("done", justify="right")
        table.add_column("elapsed", justify="right")
        with self._lock:
            for name, row in self.rows.items():
                style = {"failed": "red", "registered": "green", "interrupted": "yellow"}.get(row.phase)
                done = str(row.resources) if row.resources else ""
                here = self.timing.in_phase(name)
                so_far = f"{here:.0f} s" if here is not None else ""
                elapsed = f"{self.timing.seconds(name):.0f} s"
                table.add_row(name, row.phase, so_far, row.detail, done, elapsed, style=style)
            logs = self._logs
        below = [Text(text, style="dim", no_wrap=True, overflow="ellipsis") for text in closing(self.timing, logs)]
        return Group(table, *below)

    def _row(self, participant: str) -> _Row:
        return self.rows.setdefault(participant, _Row())

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """The row's phase and detail."""
        self.timing.phase(participant, phase)
        with self._lock:
            row = self._row(participant)
            row.phase, row.detail = phase, detail.splitlines()[0] if detail else ""

    def resource(self, participant: str, state: str, step: Step) -> None:
        """The row's detail, and how many are done."""
        self.timing.resource(participant, state, step)
        with self._lock:
            row = self._row(participant)
            row.detail = f"{STEMS[step.action]}ing {step.title}" if state == "start" else row.detail
            row.resources += state == "done"

    def line(self, text: str) -> None:
        """A line above the table."""
        self.console.print(text, markup=False)

    def log(self, folder: str) -> None:
        """Below the table."""
        with self._lock:
            self._logs = folder

    def end(self) -> None:
        """The last table says it."""


def closing(timing: Timing, logs: str) -> list[str]:
    """The slowest step and where the logs lie, as far as there is anything to tell."""
    slowest = timing.slowest()
    told = [f"slowest: {slowest.words()}"] if slowest is not None and slowest.seconds >= 1 else []
    return [*told, *([f"logs: {logs}"] if logs and Path(logs).is_dir() else [])]


@contextmanager
def screen(participants: list[str]) -> Iterator[Screen]:
    """The right screen for this command: JSON with `--json`, a live table on a terminal, plain lines otherwise."""
    from deployer.cli import context

    if context.options().json:
        yield from _ending(JsonEvents())
        return
    console = context.console()
    if not console.is_terminal:
        yield from _ending(Lines(context.say))
        return
    table = LiveTable(console, participants)
    with table.live:
        yield table


def _ending(made: Screen) -> Iterator[Screen]:
    try:
        yield made
    finally:
        made.end()
