"""The mark of a site that has a job: a file whose time is kept fresh, for a machine that turns itself off when idle.

The file's time is all that it tells. It is touched while a job that was accepted has not ended here, and when one
begins or ends: twice a minute at most, so that no task pays for it. An agent that does not live touches nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from fl_runtime.names import BUSY_MARK

log = logging.getLogger("fedspan.agent")

EVERY_S = 30.0  # half of the pause between two looks at it (deployer.idle_units)


class Busy:
    """`has_job()` says whether the site has one now; asked on a thread of its own."""

    def __init__(self, state: Path, has_job: Callable[[], bool]) -> None:
        self._path = state / BUSY_MARK
        self._has_job = has_job
        self._ended = threading.Event()

    def start(self) -> None:
        if not self._path.exists():
            self.touch()  # now: later a full disk may have no room for it, and to touch it takes none
        threading.Thread(target=self._keep, name="busy", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def touch(self) -> None:
        try:
            self._path.touch()
        except OSError as error:
            log.error("%s can't be touched: %s", self._path, error.strerror)

    def _keep(self) -> None:
        while True:
            try:
                if self._has_job():
                    self.touch()
            except Exception:  # its journal can't be read: whether it has a job is not known
                log.exception("whether a job runs here is not known")
            if self._ended.wait(EVERY_S):
                return
