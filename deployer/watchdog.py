"""Ends an engine whose step takes longer than it may: a provider would go on trying for an hour and say nothing.

The first SIGINT lets the engine cancel what runs and save; one that does not end within a grace gets the second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from deployer.engine_events import Step
from deployer.plan import VM_TYPES
from deployer.settings import setting

_LOOK_S = 0.25


def deadline_of(step: Step) -> float:
    """Seconds that a step may take: a machine's are few, as no answer there mostly means no room."""
    return setting("MACHINE_DEADLINE" if step.type in VM_TYPES else "STEP_DEADLINE")


class Watchdog:
    """Watches the steps of one engine command; a context manager around it.

    Args:
        interrupt: sends the engine one SIGINT.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._begun: dict[str, tuple[float, Step]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.overdue: Step | None = None
        """The step for which the engine was ended."""

    def saw(self, state: str, step: Step) -> None:
        """The engine began (`start`), finished or failed a step."""
        with self._lock:
            if state == "start":
                self._begun[step.urn] = (time.monotonic(), step)
            else:
                self._begun.pop(step.urn, None)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (late := self._late()) is None:
            if self._over.wait(_LOOK_S):
                return
        self.overdue = late  # the verdict stays, though the step may end while the engine is told
        for _ in range(2):
            self._interrupt()
            if self._over.wait(setting("ENGINE_GRACE")):
                return

    def _late(self) -> Step | None:
        now = time.monotonic()
        with self._lock:
            late = [step for begun, step in self._begun.values() if now - begun > deadline_of(step)]
        return late[0] if late else None
