"""Blobs between this site and the server: only the missing leaves, again after every break.

Where the way is long, several ranges go over several connections: one TCP connection moves at most a window in each
round trip. How many is decided from the round-trip time, measured on the bulk connection, and from the size.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

from fl_runtime.blobs import BlobStore, Manifest
from fl_runtime.errors import ProtocolError
from fl_runtime.hub.bulk import read_chunks
from fl_runtime.names import BULK_STREAMS, LEAF
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

CONNECTIONS = "FEDSPAN_BULK_CONNECTIONS"  # overrides the choice: 1 to 8
MAX_CONNECTIONS = 8
_PER_CONNECTION_S = 0.02  # of round-trip time: a window (wire/tls.py) of 6 MiB is 300 MB/s then
_LEAST = 4  # leaves (16 MiB) for each connection, and for each range of its own
_SMALL = 8  # leaves under which nothing is measured
_PINGS = 3
AGAIN_S = 1.0  # after a transfer that broke while the link held
_LATER_S = (0.2, 2.0)  # back-off when the server has no place

_T = TypeVar("_T")
Ranges = Sequence[tuple[int, int]]


class Bulk(Protocol):
    """The service Blobs over as many connections as are asked for (`Link`)."""

    def bulk_many(self, count: int) -> list[rpc.BlobsStub]: ...


def fetch(stub: rpc.BlobsStub, blobs: BlobStore, query: pb.BlobQuery, owner: str, bulk: Bulk | None = None) -> None:
    """Bring a blob here.

    Args:
        bulk: gives more connections; without it there is one.

    Raises:
        grpc.RpcError: the link broke, or there is no grant. What has come stays.
        ProtocolError: the content is not what the id says.
        StorageError: there is no room for it.
    """
    if blobs.has(query.blob):
        blobs.add_ref(query.blob, owner)
        return
    described = _patiently(lambda: stub.describe(query))
    manifest = Manifest(described.length, described.leaves)
    if manifest.id != query.blob:
        raise ProtocolError("A manifest does not have the blob's id")
    incoming = blobs.receive(manifest, owner, durable=False)  # it can be fetched again
    if incoming is None:
        return

    def pull(stub: rpc.BlobsStub, first: int, count: int) -> None:
        writer = incoming.writer(first, count)
        try:
            for chunk in stub.pull(pb.PullRequest(query=query, range=pb.LeafRange(first=first, count=count))):
                writer.take(chunk)
        finally:
            incoming.journal()
        if writer.leaves != count:
            raise ProtocolError("A range ended early")

    _move(stub, bulk, incoming.missing(), pull)
    blobs.finish(incoming)


def deliver(
    stub: rpc.BlobsStub, blobs: BlobStore, query: pb.BlobQuery, bulk: Bulk | None = None, *, go_ahead: bool = False
) -> None:
    """Bring a blob of ours to the server.

    Args:
        go_ahead: the server says when it has a place (the feature `GO_AHEAD`); older ones take what comes.

    Raises:
        grpc.RpcError: the link broke, or the server does not want it any more (PERMISSION_DENIED).
    """
    manifest = blobs.manifest(query.blob)
    if manifest is None:
        raise ProtocolError("A result is not here any more")
    offer = pb.OfferRequest(
        job=query.job, task=query.task, manifest=pb.Manifest(length=manifest.length, leaves=manifest.leaves)
    )
    reply = _patiently(lambda: stub.offer(offer))
    if reply.complete:
        return
    path = str(blobs.path(query.blob))

    def push(stub: rpc.BlobsStub, first: int, count: int) -> None:
        placed = threading.Event()
        frames = _frames(query, path, manifest.length, pb.LeafRange(first=first, count=count), placed)
        call = stub.push.future(frames)
        try:
            if go_ahead:
                call.initial_metadata()  # comes with the place, or the end of the call
        finally:
            placed.set()
        call.result()

    _move(stub, bulk, [(missing.first, missing.count) for missing in reply.missing], push)


def _frames(
    query: pb.BlobQuery, path: str, length: int, missing: pb.LeafRange, placed: threading.Event
) -> Iterator[bytes]:
    yield pb.PushHeader(query=query, range=missing).SerializeToString()
    placed.wait()
    start = missing.first * LEAF
    yield from read_chunks(path, start, min(start + missing.count * LEAF, length))


def round_trip(stub: rpc.BlobsStub) -> float:
    """Seconds of the shortest of a few calls on a bulk connection (questions about no blob, which are refused)."""
    best = float("inf")
    for _ in range(_PINGS):
        began = time.monotonic()
        with contextlib.suppress(grpc.RpcError):
            stub.describe(pb.BlobQuery())
        best = min(best, time.monotonic() - began)
    return best


def connections(rtt: float, leaves: int) -> int:
    """How many connections pay for so many leaves over such a round-trip time (seconds).

    The setting `FEDSPAN_BULK_CONNECTIONS` overrides it. The server moves 4 streams at once unless told otherwise.
    """
    given = os.environ.get(CONNECTIONS, "")
    if given.isdigit() and int(given) > 0:
        return max(1, min(int(given), MAX_CONNECTIONS, leaves))
    return max(1, min(int(rtt / _PER_CONNECTION_S), BULK_STREAMS, leaves // _LEAST))


def split(missing: Ranges, count: int) -> list[tuple[int, int]]:
    """Cut ranges into pieces for `count` connections: a few for each, so that the slow one of them takes fewer."""
    if count == 1:
        return list(missing)
    size = max(_LEAST, -(-sum(length for _, length in missing) // (count * 4)))
    return [
        (at, min(size, first + length - at)) for first, length in missing for at in range(first, first + length, size)
    ]


def _move(
    stub: rpc.BlobsStub, bulk: Bulk | None, missing: Ranges, move: Callable[[rpc.BlobsStub, int, int], None]
) -> None:
    """Do all ranges; the first failure stops the others at the end of their piece, and is raised."""
    leaves = sum(length for _, length in missing)
    stubs = [stub]
    if bulk is not None and (leaves >= _SMALL or os.environ.get(CONNECTIONS)):
        wanted = connections(round_trip(stub), leaves)
        stubs = bulk.bulk_many(wanted) if wanted > 1 else stubs
    pieces = iter(split(missing, len(stubs) or 1))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work(stub: rpc.BlobsStub) -> None:
        while not failures:
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            try:
                _patiently(partial(move, stub, *piece))
            except BaseException as error:
                failures.append(error)

    others = [threading.Thread(target=work, args=(one,), name="range", daemon=True) for one in stubs[1:]]
    for thread in others:
        thread.start()
    work(stubs[0] if stubs else stub)
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]


def _patiently(call: Callable[[], _T]) -> _T:
    """RESOURCE_EXHAUSTED means later: the server has no place, or its disk is full. What ends a job (or the link) ends
    the waiting too: then it answers something else."""
    delay = _LATER_S[0]
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            time.sleep(delay)
            delay = min(delay * 2, _LATER_S[1])
