"""Where the time of a command goes: phases of each participant, steps of each stack, the slowest one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from deployer.engine_events import Step

# phases after which a participant's clock stands still
FINAL = frozenset({"registered", "started", "awaited", "failed", "down", "done", "unchanged", "interrupted", "planned"})


@dataclass(frozen=True)
class Slowest:
    """One thing that took long, or takes long: whose, what, seconds, and whether it is still going on."""

    participant: str
    what: str
    seconds: float
    running: bool

    def words(self) -> str:
        """`site-1 ec2.Instance site-1-vm 35 s so far`."""
        return f"{self.participant} {self.what} {self.seconds:.0f} s{' so far' if self.running else ''}"


@dataclass
class _Track:
    begun: float
    phase: str = ""
    phase_begun: float = 0.0
    ended: float | None = None
    phases: list[tuple[str, float]] = field(default_factory=list)


class Timing:
    """Is told what a screen is told; answers how long everything took. Thread-safe.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begun = clock()
        self._lock = threading.Lock()
        self._tracks: dict[str, _Track] = {}
        self._running: dict[tuple[str, str], tuple[float, str]] = {}
        self._done: list[Slowest] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the command's work began."""
        return self._clock() - self.begun

    def phase(self, participant: str, phase: str) -> None:
        """A participant came to a phase."""
        now = self._clock()
        with self._lock:
            track = self._tracks.setdefault(participant, _Track(self.begun, "", self.begun))
            if track.phase == phase:
                return
            self._close(participant, track, now)
            track.phase, track.phase_begun = phase, now
            track.ended = now if phase in FINAL else None

    def _close(self, participant: str, track: _Track, now: float) -> None:
        """The phase that a participant leaves is over."""
        if track.phase and track.phase not in FINAL:
            seconds = now - track.phase_begun
            track.phases.append((track.phase, seconds))
            if track.phase not in _WITH_STEPS:
                self._done.append(Slowest(participant, track.phase, seconds, False))

    def resource(self, participant: str, state: str, step: Step) -> float | None:
        """The engine began, finished or failed a step; how long it took, at its end."""
        now, key = self._clock(), (participant, step.urn)
        with self._lock:
            if state == "start":
                self._running[key] = (now, step.title)
                return None
            begun, title = self._running.pop(key, (now, step.title))
            self._done.append(Slowest(participant, title, now - begun, False))
            return now - begun

    def seconds(self, participant: str) -> float:
        """How long a participant has been worked on; stands still at its end."""
        with self._lock:
            track = self._tracks.get(participant)
            if track is None:
                return self._clock() - self.begun
            return (track.ended if track.ended is not None else self._clock()) - track.begun

    def in_phase(self, participant: str) -> float | None:
        """How long a participant has been in its phase; None at its end."""
        with self._lock:
            track = self._tracks.get(participant)
            return None if track is None or track.ended is not None else self._clock() - track.phase_begun

    def phases(self) -> dict[str, dict[str, float]]:
        """Seconds of each phase of each participant, in the order in which they came."""
        with self._lock:
            told: dict[str, dict[str, float]] = {}
            for name, track in self._tracks.items():
                sums = told.setdefault(name, {})
                for phase, seconds in track.phases:
                    sums[phase] = sums.get(phase, 0.0) + seconds
            return told

    def slowest(self) -> Slowest | None:
        """The step or phase that takes or took longest."""
        now = self._clock()
        with self._lock:
            running = [Slowest(who, what, now - begun, True) for (who, _), (begun, what) in self._running.items()]
            running += [
                Slowest(name, track.phase, now - track.phase_begun, True)
                for name, track in self._tracks.items()
                if track.phase and track.ended is None and track.phase not in _WITH_STEPS
            ]
            return max([*running, *self._done], key=lambda one: one.seconds, default=None)


# phases that the engine's own steps tell of
_WITH_STEPS = frozenset({"allocating", "making", "deleting", "leaving"})
