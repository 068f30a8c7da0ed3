"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0  # for what comes in moments on an idle machine


def until(condition: Callable[[], Any], timeout: float = PATIENCE_S, what: str = "", *, every: float = 0.03) -> Any:
    """Wait for a condition to be truthy; its value. The limit is for what never comes: no claim about time.

    Args:
        timeout, every: seconds; how long, and how often it is asked.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"not within {timeout:.0f} s: {what or condition}")
