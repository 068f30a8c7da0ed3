"""A full disk is waited for: what could not be stored is tried again until there is room, or nobody wants it any more.

A quota is another matter: it is somebody's will, and what exceeds it fails.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fl_runtime.errors import QuotaError, StorageError

log = logging.getLogger("fedspan")

AGAIN_S = 2.0  # between attempts to store what there was no room for
_T = TypeVar("_T")


def is_full(error: BaseException) -> bool:
    """Whether this may pass when somebody frees disk space (or the database answers again)."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, StorageError) and not isinstance(error, QuotaError)


def patiently(action: Callable[[], _T], wanted: Callable[[], bool], who: str) -> _T:
    """Do it, and as long as the disk is full and it is `wanted`, again.

    Args:
        action: what changes nothing when it fails.
        who: whose it is, for the log, which tells it once.

    Raises:
        StorageError, OSError: it is not wanted any more.
    """
    told = False
    while True:
        try:
            return action()
        except (StorageError, OSError) as error:
            if not is_full(error) or not wanted():
                raise
            if not told:
                log.error("%s waits: %s", who, error)
            told = True
        time.sleep(AGAIN_S)


def again(action: Callable[[], object], after: float = AGAIN_S) -> None:
    """Do it later, on a thread of its own."""
    timer = threading.Timer(after, action)
    timer.daemon = True
    timer.start()
