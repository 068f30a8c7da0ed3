"""The job process's end of the hub's local socket: requests, and the events of open calls."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from fl_runtime import localsock
from fl_runtime.client.session import EPOCH, JOB, SOCKET


class HubGoneError(Exception):
    """The hub ended this launch, or died: the process ends, and is started again from the last finished round."""


class Link:
    """One thread's business: it asks, and takes events when it waits for them."""

    def __init__(self) -> None:
        self._events: deque[tuple[dict[str, Any], bytes]] = deque()
        self._connection = localsock.connect(Path(os.environ[SOCKET]))
        hello = {"op": "attach", "job": os.environ[JOB], "epoch": int(os.environ[EPOCH]), "pid": os.getpid()}
        self.hello, self.model = self.ask(hello)

    def ask(self, message: dict[str, Any], binary: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send and wait for the reply; events that come before it are kept."""
        self.post(message, binary)
        while True:
            received = self._receive()
            if "event" not in received[0]:
                return received
            self._events.append(received)

    def post(self, message: dict[str, Any], binary: bytes = b"") -> None:
        """Send what has no reply."""
        try:
            self._connection.send(message, binary)
        except OSError:
            raise HubGoneError from None

    def event(self) -> tuple[dict[str, Any], bytes]:
        """The next event."""
        return self._events.popleft() if self._events else self._receive()

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        received = self._connection.receive()
        if received is None or "error" in received[0]:
            raise HubGoneError(received[0]["error"] if received else "")
        return received

    def close(self) -> None:
        self._connection.close()
