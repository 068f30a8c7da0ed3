"""The user's interrupt: once, what runs is finished and saved; twice, the command ends at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from .events import Stream

ABORTED = 8  # the exit code of a command that was interrupted twice


class Interrupts:
    """While it is entered, SIGINT and SIGTERM go to `once`, and the second of them to `twice`, after which the
    process exits.
    """

    def __init__(self, events: Stream, once: Callable[[], None], twice: Callable[[], None]) -> None:
        self._events, self._once, self._twice = events, once, twice
        self._count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._happened)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _happened(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._events.stdout(
                "^C received; cancelling. If you would like to terminate immediately, press ^C again.\n"
                "Note that terminating immediately may lead to orphaned resources and other inconsistencies.\n"
            )
            self._once()
            return
        self._events.stdout("^C received; terminating")
        self._twice()
        sys.stderr.write("error: update cancelled\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ABORTED)  # steps are still running on their threads: they must not be waited for
