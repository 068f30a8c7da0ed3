"""That something changed, for those who watch: a count that they can wait for."""

from __future__ import annotations

import threading


class Changes:
    """What a hub (the real one, the simulator's) is to its watchers. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._changes = 0

    def changed(self) -> None:
        """Wake all who wait."""
        with self._change:
            self._changes += 1
            self._change.notify_all()

    def change_number(self) -> int:
        """How many changes there were: ask before looking, and wait for another one after."""
        with self._change:
            return self._changes

    def wait_change(self, seen: int, timeout: float) -> None:
        """Until there is a change after number `seen`, for at most `timeout` seconds."""
        with self._change:
            self._change.wait_for(lambda: self._changes != seen, timeout)
