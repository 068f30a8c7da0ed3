"""Engines begin one after the other where there are fewer processors than engines: the most urgent first."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deployer.member import Member


def urgency(member: Member) -> int:
    """Small first: everybody waits for the server, and a machine takes a minute in Azure, half of that in AWS."""
    if member.role == "server":
        return 0
    return 1 if member.cloud == "azure" else 2


LONGEST_S = 60.0
"""An engine that has not made a step by then waits for a cloud too: it looks at it, or tries again what is refused."""


class Starts:
    """Until its first step an engine works; from then on it waits for a cloud, and another one may begin.

    Methods may be called from any thread.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._begun: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def begin(self, member: Member) -> Iterator[None]:
        """Around an operation of an engine; its turn is over at its end, if not before."""
        with self._changed:
            ticket = (urgency(member), next(self._numbers))
            heapq.heappush(self._waiting, ticket)
            self._changed.wait_for(lambda: self._free > 0 and self._waiting[0] == ticket)
            heapq.heappop(self._waiting)
            self._free -= 1
            self._begun.add(member.name)
            self._changed.notify_all()
        longest = threading.Timer(LONGEST_S, self.works, [member.name])
        longest.daemon = True
        longest.start()
        try:
            yield
        finally:
            longest.cancel()
            self.works(member.name)

    def works(self, name: str) -> None:
        """An engine has made its first step: its turn is over."""
        with self._changed:
            if name in self._begun:
                self._begun.remove(name)
                self._free += 1
                self._changed.notify_all()
