"""Who may move bulk now: a few at once, the others in a fair queue.

Fair between participants, not between calls: whoever has the fewest transfers running comes first, then whoever has
waited longest, so that a site with eight parallel ranges does not keep one with a single range outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHECK_S = 0.5  # how often a queued call looks whether its caller is still there


class HungUpError(Exception):
    """The caller went away while it was queued."""


class Turnstile:
    """`places` inside at once. What is queued costs its site no time: `queued()` is taken off its deadline."""

    def __init__(self, places: int) -> None:
        self._places = max(1, places)
        self._inside: dict[str, int] = {}
        self._queue: list[tuple[str, object]] = []
        self._waited: dict[str, float] = {}  # seconds that are over
        self._since: dict[str, float] = {}  # of those who wait now with nothing inside
        self._condition = threading.Condition()
        self._passed = 0

    @property
    def passed(self) -> int:
        """How many have left."""
        return self._passed

    @property
    def places(self) -> int:
        return self._places

    @contextmanager
    def enter(self, who: str, here: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Wait for a place, and leave it in the end.

        Args:
            here: whether the caller is still there; asked twice a second while it waits.

        Raises:
            HungUpError: it is not.
        """
        ticket = (who, object())
        with self._condition:
            self._queue.append(ticket)
            self._account(who)
            try:
                while self._next() is not ticket:
                    self._condition.wait(_CHECK_S)
                    if not here():
                        raise HungUpError(who)
                self._inside[who] = self._inside.get(who, 0) + 1
            finally:
                self._queue.remove(ticket)
                self._account(who)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._passed += 1
                self._inside[who] -= 1
                if not self._inside[who]:
                    del self._inside[who]
                self._account(who)
                self._condition.notify_all()

    def queued(self, who: str) -> float:
        """Seconds, so far, in which this participant waited in the queue and had nothing running. Only ever grows."""
        with self._condition:
            since = self._since.get(who)
            return self._waited.get(who, 0.0) + (time.monotonic() - since if since is not None else 0.0)

    def _next(self) -> tuple[str, object] | None:
        if sum(self._inside.values()) >= self._places or not self._queue:
            return None
        return min(self._queue, key=lambda ticket: self._inside.get(ticket[0], 0))  # the first of equals

    def _account(self, who: str) -> None:
        """Start or stop the clock of those who only wait."""
        waits = who not in self._inside and any(name == who for name, _ in self._queue)
        since = self._since.get(who)
        if waits and since is None:
            self._since[who] = time.monotonic()
        elif not waits and since is not None:
            self._waited[who] = self._waited.get(who, 0.0) + time.monotonic() - since
            del self._since[who]
