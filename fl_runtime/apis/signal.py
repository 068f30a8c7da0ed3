"""A flag between threads: set once, asked often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Signal:
    """`triggered` is False until somebody triggers it with a value; `parent` triggers its children."""

    def __init__(self, parent: Signal | None = None) -> None:
        self._value: Any = None
        self._triggered = False
        self._parent = parent
        self.trigger_time: float | None = None
        self._asked: Callable[[], None] | None = None  # called at each question: a waiting loop lets results in

    def trigger(self, value: Any) -> None:
        self._value = value
        self.trigger_time = time.time()
        self._triggered = True

    def reset(self, value: Any = None) -> None:
        self._value, self._triggered, self.trigger_time = value, False, None

    @property
    def value(self) -> Any:
        return self._value

    @property
    def triggered(self) -> bool:
        if self._asked is not None:
            self._asked()
        return self._triggered or (self._parent is not None and self._parent.triggered)
