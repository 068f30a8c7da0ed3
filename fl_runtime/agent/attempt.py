"""One connection to the server: the stream, bulk channels beside it, and when either was heard last."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from fl_runtime.kit import Endpoint, Kit
from fl_runtime.names import LOW_WAITING
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import


class Outbox:
    """What the stream sends: control messages in order, and a few of low priority when there are no others."""

    def __init__(self) -> None:
        self._high: deque[pb.ToHub] = deque()
        self._low: deque[pb.ToHub] = deque()
        self._closed = False
        self._condition = threading.Condition()

    def put(self, message: pb.ToHub) -> None:
        with self._condition:
            self._high.append(message)
            self._condition.notify()

    def put_low(self, message: pb.ToHub) -> bool:
        """False when as many as may wait are waiting."""
        with self._condition:
            if len(self._low) >= LOW_WAITING:
                return False
            self._low.append(message)
            self._condition.notify()
            return True

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()

    def __iter__(self) -> Outbox:
        return self

    def __next__(self) -> pb.ToHub:
        with self._condition:
            self._condition.wait_for(lambda: self._high or self._low or self._closed)
            if self._high:
                return self._high.popleft()
            if self._closed:
                raise StopIteration
            return self._low.popleft()


class Attempt:
    """From dialling to the end of the stream. `heard` is when the last byte came, on any of its connections."""

    def __init__(self, kit: Kit, endpoint: Endpoint, major: int) -> None:
        self.endpoint = endpoint
        self.major = major
        self.out = Outbox()
        self.welcome: pb.Welcome | None = None
        self.heard = time.monotonic()
        self.silent = False
        self.call: Any = None
        self._kit = kit
        self._channel = tls.channel(kit, endpoint)
        self._bulk: list[grpc.Channel] = []
        self._lock = threading.Lock()

    def open(self) -> Iterator[pb.ToParticipant]:
        self.call = rpc.HubStub(self._channel).connect(self.out)
        stream: Iterator[pb.ToParticipant] = self.call
        return stream

    def bulk(self, count: int = 1) -> list[rpc.BlobsStub]:
        """The service Blobs over `count` connections, each of its own, made when first needed."""
        with self._lock:
            while len(self._bulk) < count:
                self._bulk.append(tls.channel(self._kit, self.endpoint, bulk=True))
            return [self._listening(channel) for channel in self._bulk[:count]]

    def _listening(self, channel: grpc.Channel) -> rpc.BlobsStub:
        stub = rpc.BlobsStub(channel)
        stub.pull, stub.push = _Heard(stub.pull, self), _Heard(stub.push, self)
        return stub

    def close(self) -> None:
        self.out.close()
        if self.call is not None:
            self.call.cancel()
        self._channel.close()
        with self._lock:
            for channel in self._bulk:
                channel.close()


class _Heard:
    """A bulk method with an ear on it: bytes that move on the bulk connection are a sign of life of the server."""

    def __init__(self, method: Any, attempt: Attempt) -> None:
        self._method = method
        self._attempt = attempt

    def __call__(self, request: Any, **options: Any) -> Any:
        return self._listen(self._method(self._listen(request), **options))

    def future(self, request: Any, **options: Any) -> Any:
        return self._method.future(self._listen(request), **options)

    def _listen(self, what: Any) -> Any:
        return _Counted(what, self._attempt) if hasattr(what, "__next__") else what


class _Counted:
    """An iterator (or a call that is one), each piece of which is noted."""

    def __init__(self, pieces: Any, attempt: Attempt) -> None:
        self._pieces = pieces
        self._attempt = attempt

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        piece = next(self._pieces)
        self._attempt.heard = time.monotonic()
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)
