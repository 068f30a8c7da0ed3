"""Participants that are deployed at the same time, and what some of them have to know of the others first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

_LOOK_S = 0.2  # between looks at whether the operator wants to stop


class Arrivals:
    """Who has got as far as the others need. Methods may be called from any thread.

    Args:
        names: those who are on their way; nobody waits for others.
        check: raises when there is nothing to be waited for any more (Ctrl-C).
    """

    def __init__(self, names: Iterable[str], check: Callable[[], None]) -> None:
        self._missing = set(names)
        self._check = check
        self._changed = threading.Condition()

    def arrived(self, name: str) -> None:
        """It is there, or has failed: whatever is known of it by now is all."""
        with self._changed:
            self._missing.discard(name)
            self._changed.notify_all()

    def wait_for(self, *names: str) -> None:
        """Until these are there; without names: all. Raises what `check` raises."""
        with self._changed:
            while self._missing & set(names) if names else self._missing:
                self._changed.wait(_LOOK_S)
                self._check()
