"""Ctrl-C: what it does to running engines, and how waiting code notices it.

`pulumi` runs in a session of its own, so the terminal's Ctrl-C reaches only us. The first one is passed on to each
running engine once: it finishes and saves what runs, starts nothing new, and ends. Meanwhile our threads go on serving
it (the stack's program runs here). The second is passed on too: the engine stops at once, and what hangs in the air is
settled by the next command.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from deployer.errors import Interrupted

LEADS_NEXT = "fedspan up goes on from here, fedspan down takes everything away"
OWNERS_NEXT = "./start.sh --cloud CLOUD goes on from here, ./stop.sh --cloud takes everything away"


class Interrupts:
    """Knows the running engines of this process, and whether the operator wants to stop.

    Args:
        next_step: what to type after an interruption; a kit's owner has other commands than a federation's lead.
    """

    def __init__(self, next_step: str = LEADS_NEXT) -> None:
        self.next_step = next_step
        self._lock = threading.Lock()
        self._engines: dict[int, str] = {}
        self.count = 0
        self.stopping = threading.Event()
        self.on_interrupt: Callable[[int, list[str]], None] = lambda count, names: None

    @contextmanager
    def engine(self, pid: int, name: str) -> Iterator[None]:
        """An engine command of `name` runs as `pid`. One that started while Ctrl-C was pressed is told at once."""
        with self._lock:
            self._engines[pid] = name
            late = self.count
        try:
            for _ in range(late):
                _interrupt(pid)
            yield
        finally:
            with self._lock:
                self._engines.pop(pid, None)

    def interrupt(self) -> None:
        """Pass one SIGINT on to each running engine."""
        with self._lock:
            self.count += 1
            self.stopping.set()
            engines = dict(self._engines)
        for pid in engines:
            _interrupt(pid)
        self.on_interrupt(self.count, sorted(set(engines.values())))

    def interrupt_engine(self, name: str) -> None:
        """One SIGINT to the engine of one stack; everybody else goes on."""
        with self._lock:
            pids = [pid for pid, owner in self._engines.items() if owner == name]
        for pid in pids:
            _interrupt(pid)

    def check(self) -> None:
        """Raise Interrupted when the operator wants to stop; called between steps and while waiting."""
        if self.stopping.is_set():
            raise self.stopped()

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until Ctrl-C; then raise Interrupted."""
        if self.stopping.wait(seconds):
            raise self.stopped()

    def stopped(self) -> Interrupted:
        """The error that ends an interrupted command."""
        return Interrupted("interrupted; what was made so far is saved", next_step=self.next_step)

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Ctrl-C (and SIGTERM) come here, for as long as this lasts. Only in the main thread."""

        def handler(number: int, frame: FrameType | None) -> None:
            # a handler may run while the main thread holds our lock: the work is done beside it
            threading.Thread(target=self.interrupt, name="interrupt", daemon=True).start()

        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def _interrupt(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        return
