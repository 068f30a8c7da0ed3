"""The demo's job as one watches it: rounds, accuracy, a sparkline, and who has answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployer.cli import context
from deployer.demo.plot import sparkline


@dataclass
class Progress:
    """What is known of a job so far, from its events."""

    rounds: int
    sites: list[str]
    done: int = 0
    mean: list[float] = field(default_factory=list)
    by_site: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> bool:
        """Takes an event in; whether a round ended."""
        kind = event.get("event")
        if kind == "round":
            self.done = int(event["round"]) + 1
            self.mean.append(float(event["metrics"].get("accuracy", 0.0)))
            for site, answer in event["sites"].items():
                self.by_site.setdefault(site, []).append(float(answer.get("accuracy", 0.0)))
            return True
        if kind in ("refused", "left", "failed", "restarted"):
            self.notes.append(" ".join(str(event[key]) for key in ("site", "event", "why") if event.get(key)))
        return False

    def line(self) -> str:
        """One line: round, accuracy of the model that the sites received, its course, and who has answered."""
        if not self.mean:
            return f"round 0 of {self.rounds}: the sites' processes start"
        answered = [site for site in self.sites if len(self.by_site.get(site, ())) >= self.done]
        return (
            f"round {self.done:>2} of {self.rounds}  accuracy {self.mean[-1]:6.1%}  "
            f"{sparkline(self.mean):<{self.rounds}}  answered: {', '.join(answered)}"
        )


class Shown(Protocol):
    """Shows progress."""

    def __call__(self, progress: Progress) -> None: ...


@contextmanager
def shown() -> Iterator[Shown]:
    """One line redrawn in place on a terminal, a line for each round elsewhere."""
    console = context.console()
    if not console.is_terminal:
        yield lambda progress: context.say(f"  {progress.line()}")
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, auto_refresh=False) as live:
        yield lambda progress: live.update(Text(f"  {progress.line()}"), refresh=True)


def watch(session: Any, job: str, progress: Progress) -> dict[str, Any]:
    """Follows a job to its end; its last state."""
    with shown() as show:
        show(progress)

        def on_event(event: dict[str, Any]) -> None:
            if progress.take(event):
                show(progress)

        view: dict[str, Any] = session.monitor(job, on_event)
    for note in progress.notes:
        context.say(f"  note: {note}")
    return view
