"""What is made for a running job: the process of its filters and codecs, and what becomes a blob of the job's.

A job's end drops what it holds, once; work that is still under way then adds nothing to that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fl_runtime.blobs import Staged
from fl_runtime.errors import FlError
from fl_runtime.filters.workshop import Workshop
from fl_runtime.hub.state import RUNNING

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub


class Workshops:
    """Methods may be called from any thread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()  # never held while the store is asked
        self._shops: dict[str, Workshop] = {}

    def of(self, job: str) -> Workshop:
        """The job's.

        Raises:
            FlError: the job is over.
        """
        with self._lock:
            shop = self._shops.setdefault(job, Workshop(job))
        try:
            self._check(job)
        except FlError:
            self.end(job)  # its end may have come before this one was there
            raise
        return shop

    @contextmanager
    def registering(self, job: str, *staged: Staged) -> Iterator[Callable[[Staged, str], bytes]]:
        """As the store's.

        Raises:
            FlError: the job is over; nothing is kept.
        """
        with self._hub.blobs.registering(*staged) as register:
            self._check(job)
            yield register

    def _check(self, job: str) -> None:
        found = self._hub.store.job(job)
        if found is None or found.state != RUNNING:
            raise FlError("The job is over", participant=job)

    def end(self, job: str) -> None:
        """The job is over: whatever runs for it ends."""
        with self._lock:
            shop = self._shops.pop(job, None)
        if shop is not None:
            shop.close()
