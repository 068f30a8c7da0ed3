"""Blobs between this site and the server: only the missing leaves, again after every break."""

from __future__ import annotations

from collections.abc import Iterator

from fl_runtime.blobs import BlobStore, Manifest
from fl_runtime.errors import ProtocolError
from fl_runtime.hub.bulk import read_chunks
from fl_runtime.names import LEAF
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc


def fetch(stub: rpc.BlobsStub, blobs: BlobStore, query: pb.BlobQuery, owner: str) -> None:
    """Bring a blob here.

    Raises:
        grpc.RpcError: the link broke, or there is no grant. What has come stays.
        ProtocolError: the content is not what the id says.
    """
    if blobs.has(query.blob):
        blobs.add_ref(query.blob, owner)
        return
    described = stub.describe(query)
    manifest = Manifest(described.length, described.leaves)
    if manifest.id != query.blob:
        raise ProtocolError("A manifest does not have the blob's id")
    incoming = blobs.receive(manifest, owner, durable=False)  # it can be fetched again
    if incoming is None:
        return
    for first, count in incoming.missing():
        writer = incoming.writer(first, count)
        try:
            for chunk in stub.pull(pb.PullRequest(query=query, range=pb.LeafRange(first=first, count=count))):
                writer.take(chunk)
        finally:
            incoming.journal()
        if writer.leaves != count:
            raise ProtocolError("A range ended early")
    blobs.finish(incoming)


def deliver(stub: rpc.BlobsStub, blobs: BlobStore, query: pb.BlobQuery) -> None:
    """Bring a blob of ours to the server.

    Raises:
        grpc.RpcError: the link broke, or the server does not want it any more (PERMISSION_DENIED).
    """
    manifest = blobs.manifest(query.blob)
    if manifest is None:
        raise ProtocolError("A result is not here any more")
    offer = pb.OfferRequest(
        job=query.job, task=query.task, manifest=pb.Manifest(length=manifest.length, leaves=manifest.leaves)
    )
    reply = stub.offer(offer)
    if reply.complete:
        return
    path = str(blobs.path(query.blob))
    for missing in reply.missing:
        stub.push(_frames(query, path, manifest.length, missing))


def _frames(query: pb.BlobQuery, path: str, length: int, missing: pb.LeafRange) -> Iterator[bytes]:
    yield pb.PushHeader(query=query, range=missing).SerializeToString()
    start = missing.first * LEAF
    yield from read_chunks(path, start, min(start + missing.count * LEAF, length))
