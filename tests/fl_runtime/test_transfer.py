"""How blobs are shared out over connections: from the round-trip time and the size, unless told otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fl_runtime.agent import transfer
from fl_runtime.agent.transfer import CONNECTIONS, connections, split
from fl_runtime.blobs import BLOB_SCHEMA, BlobStore
from fl_runtime.db import Sqlite
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc

import grpc  # isort: skip - after fl_runtime.wire, which sets what gRPC reads at import


@pytest.mark.parametrize(
    ("rtt", "leaves", "wanted"),
    [(0.0005, 10_000, 1), (0.03, 10_000, 1), (0.05, 10_000, 2), (0.2, 10_000, 4), (0.2, 8, 2), (0.2, 3, 1)],
)
def test_connections_come_with_the_length_of_the_way_and_the_size(rtt: float, leaves: int, wanted: int) -> None:
    assert connections(rtt, leaves) == wanted


def test_the_setting_decides_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTIONS, "3")
    assert connections(0.0, 100) == 3
    assert connections(9.0, 2) == 2
    monkeypatch.setenv(CONNECTIONS, "99")
    assert connections(0.0, 100) == 8


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("missing", [[(0, 1)], [(0, 100)], [(3, 5), (20, 77), (200, 1)]])
def test_pieces_are_the_missing_leaves_each_once(missing: list[tuple[int, int]], count: int) -> None:
    pieces = split(missing, count)
    cut = [leaf for first, length in pieces for leaf in range(first, first + length)]
    assert cut == [leaf for first, length in missing for leaf in range(first, first + length)]


class _Queueing:
    """A server that has no place for a push until `place` is set."""

    def __init__(self) -> None:
        self.place = threading.Event()
        self.header = threading.Event()
        self.frames = 0

    def offer(self, request: pb.OfferRequest, context: grpc.ServicerContext) -> pb.OfferReply:
        return pb.OfferReply(missing=[pb.LeafRange(first=0, count=len(request.manifest.leaves) // 32)])

    def push(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> pb.PushReply:
        next(frames)
        self.header.set()
        assert self.place.wait(60)
        context.send_initial_metadata(())
        self.frames = sum(1 for _ in frames)
        return pb.PushReply()

    describe = pull = None


@pytest.mark.parametrize("go_ahead", [True, False])
def test_a_queued_push_sends_its_header_only_unless_the_server_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go_ahead: bool
) -> None:
    blobs = BlobStore(tmp_path, Sqlite(tmp_path / "db", [BLOB_SCHEMA]))
    blob = blobs.put(bytes(range(256)) * 4096 * 9, "test")  # 9 MiB
    read = threading.Semaphore(0)
    chunks = transfer.read_chunks

    def counted(*args: Any) -> Iterator[bytes]:
        for chunk in chunks(*args):
            read.release()
            yield chunk

    monkeypatch.setattr(transfer, "read_chunks", counted)
    service = _Queueing()
    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(1) as site:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((rpc.blob_handlers(service),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = rpc.BlobsStub(channel)
            try:
                sent = site.submit(transfer.deliver, stub, blobs, pb.BlobQuery(blob=blob), go_ahead=go_ahead)
                assert service.header.wait(60)
                assert read.acquire(timeout=0.3 if go_ahead else 60) is not go_ahead
            finally:
                service.place.set()
            sent.result(60)
        assert service.frames == 9
        server.stop(0).wait()
