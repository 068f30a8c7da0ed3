"""What the screen shows while something long runs: a row for each participant, plain lines, or JSON events.

The same calls serve all three: `phase` when a participant comes to another phase, `resource` while the engine works on
one, `line` for what concerns nobody in particular.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from deployer.engine_events import Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# the engine's words for a step, without their endings: "creat" + "ing" in rows, "creat" + "ed" in lines
STEMS = {"create": "creat", "update": "updat", "replace": "replac", "delete": "delet", "import": "import"}

# phases after which a row's clock stands still
FINAL = frozenset({"registered", "started", "awaited", "failed", "down", "done", "unchanged", "interrupted", "planned"})


class Screen(Protocol):
    """Where progress goes. Called from several threads."""

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """A participant came to a phase."""

    def resource(self, participant: str, state: str, step: Step) -> None:
        """The engine began (`start`), finished (`done`) or failed (`failed`) a step."""

    def line(self, text: str) -> None:
        """Something that concerns nobody in particular."""


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


class Lines:
    """One line for each event, for logs and pipes: elapsed seconds, participant, what happened."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write = write
        self.begun = time.monotonic()
        self._lock = threading.Lock()
        self._phases: dict[str, str] = {}

    def _put(self, text: str) -> None:
        with self._lock:
            self.write(f"{time.monotonic() - self.begun:6.1f}s  {text}")

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """One line for each new phase; what moves within a phase is for screens that can be redrawn."""
        if self._phases.get(participant) == phase:
            return
        self._phases[participant] = phase
        self._put(f"{participant}: {phase}{f', {detail}' if detail else ''}")

    def resource(self, participant: str, state: str, step: Step) -> None:
        """One line for each finished or failed step."""
        if state != "start":
            ending = f"{STEMS[step.action]}ed" if state == "done" else "failed"
            self._put(f"{participant}: {step.title} {ending}")

    def line(self, text: str) -> None:
        """One line."""
        self._put(text)


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self._lock = threading.Lock()

    def _put(self, **event: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps({**event, "elapsed": round(time.monotonic() - self.begun, 2)}) + "\n")
            sys.stdout.flush()

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """`{"event": "phase", …}`."""
        self._put(event="phase", participant=participant, phase=phase, detail=detail)

    def resource(self, participant: str, state: str, step: Step) -> None:
        """`{"event": "resource", …}`."""
        self._put(
            event="resource",
            participant=participant,
            state=state,
            action=step.action,
            type=step.type,
            name=step.name,
        )

    def line(self, text: str) -> None:
        """`{"event": "message", …}`."""
        self._put(event="message", text=text)


@dataclass
class _Row:
    phase: str = "waiting"
    detail: str = ""
    resources: int = 0
    begun: float = field(default_factory=time.monotonic)
    ended: float | None = None


class LiveTable:
    """A row for each participant, redrawn in place."""

    def __init__(self, console: Console, participants: list[str]) -> None:
        from rich.live import Live

        self.console = console
        self.rows = {name: _Row() for name in participants}
        self._lock = threading.Lock()
        self.live = Live(get_renderable=self._table, console=console, refresh_per_second=4, transient=False)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("participant", "phase", "resource", "done"):
            table.add_column(heading, no_wrap=True)
        table.add_column("elapsed", justify="right")
        with self._lock:
            for name, row in self.rows.items():
                seconds = (row.ended or time.monotonic()) - row.begun
                style = {"failed": "red", "registered": "green", "interrupted": "yellow"}.get(row.phase)
                done = str(row.resources) if row.resources else ""
                table.add_row(name, row.phase, row.detail, done, f"{seconds:.0f} s", style=style)
        return table

    def _row(self, participant: str) -> _Row:
        return self.rows.setdefault(participant, _Row())

    def phase(self, participant: str, phase: str, detail: str = "") -> None:
        """The row's phase and detail."""
        with self._lock:
            row = self._row(participant)
            row.phase, row.detail = phase, detail.splitlines()[0][:70] if detail else ""
            row.ended = time.monotonic() if phase in FINAL else None

    def resource(self, participant: str, state: str, step: Step) -> None:
        """The row's detail, and how many are done."""
        with self._lock:
            row = self._row(participant)
            row.detail = f"{STEMS[step.action]}ing {step.title}" if state == "start" else row.detail
            row.resources += state == "done"

    def line(self, text: str) -> None:
        """A line above the table."""
        self.console.print(text, markup=False)


@contextmanager
def screen(participants: list[str]) -> Iterator[Screen]:
    """The right screen for this command: JSON with `--json`, a live table on a terminal, plain lines otherwise."""
    from deployer.cli import context

    if context.options().json:
        yield JsonEvents()
        return
    console = context.console()
    if not console.is_terminal:
        yield Lines(context.say)
        return
    table = LiveTable(console, participants)
    with table.live:
        yield table
