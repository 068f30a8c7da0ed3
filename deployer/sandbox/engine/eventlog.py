"""Where the events go: the Automation API's event server (`--event-log tcp://HOST:PORT`), or a file with a line for
each.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import grpc
from pulumi.runtime.proto import events_pb2, events_pb2_grpc

from .provider import CHANNEL

_CLOSE_SECONDS = 5.0  # how long the last events may take to be read by the other side


class FileLog:
    def __init__(self, path: str) -> None:
        self._file: TextIO = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - open as long as the command

    def __call__(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ServerLog:
    """Streams each event as it comes; closing waits until the server has read them all."""

    def __init__(self, address: str) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address, options=CHANNEL)
        stub = events_pb2_grpc.EventsStub(self._channel)
        self._thread = threading.Thread(target=self._run, args=(stub,), daemon=True)
        self._thread.start()

    def __call__(self, event: dict[str, Any]) -> None:
        self._queue.put(event)

    def _requests(self) -> Iterator[events_pb2.EventRequest]:
        while (event := self._queue.get()) is not None:
            yield events_pb2.EventRequest(event=json.dumps(event))

    def _run(self, stub: events_pb2_grpc.EventsStub) -> None:
        with contextlib.suppress(grpc.RpcError):  # nobody listens any more: the deployment goes on unwatched
            stub.StreamEvents(self._requests())

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)
        self._channel.close()


def open_log(target: str) -> FileLog | ServerLog:
    return ServerLog(target.removeprefix("tcp://")) if target.startswith("tcp://") else FileLog(target)
