"""The user's interrupt: once, what runs is finished and saved; twice, the command ends at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType

from .events import Stream

ABORTED = 8  # the exit code of a command that was interrupted twice


class Interrupts:
    """While it is entered, SIGINT and SIGTERM interrupt nothing by themselves: no moment loses the stack's lock.

    Between `attach` and `detach` the first of them calls `once`, the second `twice`, after which the process exits.
    What comes before counts when it is attached; what comes after finds the command at its end anyway.
    """

    def __init__(self) -> None:
        self._count = 0
        self._attached: tuple[Stream, Callable[[], None], Callable[[], None]] | None = None

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._happened)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the command is at its end: there is nothing to interrupt any more

    def attach(self, events: Stream, once: Callable[[], None], twice: Callable[[], None]) -> None:
        early, self._attached = self._count, (events, once, twice)
        if early:
            self._first()
        if early > 1:
            self._second()

    def detach(self) -> None:
        self._attached = None

    def _happened(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._attached is not None:
            self._first() if self._count == 1 else self._second()

    def _first(self) -> None:
        assert self._attached is not None
        events, once, _ = self._attached
        events.stdout(
            "^C received; cancelling. If you would like to terminate immediately, press ^C again.\n"
            "Note that terminating immediately may lead to orphaned resources and other inconsistencies.\n"
        )
        once()

    def _second(self) -> None:
        assert self._attached is not None
        events, _, twice = self._attached
        events.stdout("^C received; terminating")
        twice()
        sys.stderr.write("error: update cancelled\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ABORTED)  # steps are still running on their threads: they must not be waited for
