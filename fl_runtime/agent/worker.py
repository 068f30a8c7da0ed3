"""Threads that do one thing after the other."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import grpc

log = logging.getLogger("fedspan.agent")


class Worker:
    """One thread that does things in order."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, action: Callable[[], None]) -> None:
        self._queue.put(action)

    def stop(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                action()
            except grpc.RpcError as error:
                log.info("a transfer broke off: %s", error.code().name if hasattr(error, "code") else error)
            except Exception:
                log.exception("something failed")
