"""The job process's end of the hub's local socket: requests, and the events of open calls."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

from fl_runtime import localsock
from fl_runtime.client.session import EPOCH, JOB, SOCKET

Frame = tuple[dict[str, Any], bytes]


class HubGoneError(Exception):
    """The hub ended this launch, or died: the process ends, and is started again from the last finished round."""


class Link:
    """Any thread may ask or post; events are taken by whoever waits for them."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._connection = localsock.connect(Path(os.environ[SOCKET]))
        threading.Thread(target=self._read, name="link", daemon=True).start()
        hello = {"op": "attach", "job": os.environ[JOB], "epoch": int(os.environ[EPOCH]), "pid": os.getpid()}
        self.hello, self.model = self.ask(hello)

    def ask(self, message: dict[str, Any], binary: bytes = b"") -> Frame:
        """Send and wait for the reply."""
        with self._asking:
            self.post(message, binary)
            return self._taken(self._replies.get(), self._replies)

    def post(self, message: dict[str, Any], binary: bytes = b"") -> None:
        """Send what has no reply."""
        try:
            self._connection.send(message, binary)
        except OSError:
            raise HubGoneError from None

    def event(self, timeout: float | None = None) -> Frame | None:
        """The next event; None when there is none within `timeout` seconds (None: wait for ever)."""
        try:
            frame = self._events.get(timeout=timeout) if timeout != 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        return self._taken(frame, self._events)

    def _taken(self, frame: Frame | None, where: queue.SimpleQueue[Frame | None]) -> Frame:
        if frame is None:
            where.put(None)  # for the next one who asks
            raise HubGoneError
        return frame

    def _read(self) -> None:
        while (received := self._connection.receive()) is not None and "error" not in received[0]:
            (self._events if "event" in received[0] else self._replies).put(received)
        self._events.put(None)
        self._replies.put(None)

    def close(self) -> None:
        self._connection.close()
