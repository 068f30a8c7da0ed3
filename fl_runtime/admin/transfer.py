"""Blobs between an admin's machine and the server: verified leaf by leaf; after a break from the first missing one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from fl_runtime.admin.connection import TIMEOUT_S, Connection
from fl_runtime.blobs import Manifest
from fl_runtime.errors import FlError, ProtocolError
from fl_runtime.names import CHUNK, LEAF
from fl_runtime.proto import fedspan_pb2 as pb


def upload(connection: Connection, job: str, manifest: Manifest, data: bytes) -> None:
    """Bring a job's bundle to the server."""
    query = pb.BlobQuery(blob=manifest.id, job=job)
    offer = pb.OfferRequest(job=job, manifest=pb.Manifest(length=manifest.length, leaves=manifest.leaves))

    def push() -> None:
        reply = connection.blobs.offer(offer, timeout=TIMEOUT_S)
        for missing in reply.missing:
            connection.blobs.push(_frames(query, missing, data))

    connection.repeat(push)


def fetch(connection: Connection, job: str, blob: bytes, path: Path) -> None:
    """Bring a blob of a job to a file. What a broken download left in `path` is kept as far as it is right.

    Raises:
        FlError: the server sends something else than the blob.
    """
    query = pb.BlobQuery(blob=blob, job=job)
    described = connection.repeat(lambda: connection.blobs.describe(query, timeout=TIMEOUT_S))
    manifest = Manifest(described.length, described.leaves)
    if manifest.id != blob:
        raise _damaged(job)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:
        have = _right(file.fileno(), manifest)
        file.truncate(have * LEAF)

        def pull() -> None:
            nonlocal have
            if have >= manifest.count:
                return
            wanted = pb.LeafRange(first=have, count=manifest.count - have)
            leaf = bytearray()
            for chunk in connection.blobs.pull(pb.PullRequest(query=query, range=wanted)):
                leaf += chunk
                if len(leaf) == manifest.size(have):
                    if blake3(leaf).digest() != manifest.leaf(have):
                        raise _damaged(job)
                    os.pwrite(file.fileno(), leaf, have * LEAF)
                    have += 1
                    leaf.clear()
                elif have >= manifest.count or len(leaf) > manifest.size(have):
                    raise _damaged(job)
            if have < manifest.count:
                raise ProtocolError("A download ended early", next_step=f"fedspan job download {job}")

        connection.repeat(pull)
        os.fdatasync(file.fileno())


def _right(fd: int, manifest: Manifest) -> int:
    """How many leaves, from the first, lie in the file as they should."""
    for index in range(manifest.count):
        data = os.pread(fd, manifest.size(index), index * LEAF)
        if len(data) != manifest.size(index) or blake3(data).digest() != manifest.leaf(index):
            return index
    return manifest.count


def _damaged(job: str) -> FlError:
    return FlError("The download arrived damaged", participant="server", next_step=f"fedspan job download {job}")


def _frames(query: pb.BlobQuery, missing: pb.LeafRange, data: bytes) -> Iterator[bytes]:
    yield pb.PushHeader(query=query, range=missing).SerializeToString()
    start = missing.first * LEAF
    stop = min(start + missing.count * LEAF, len(data))
    for at in range(start, stop, CHUNK):
        yield data[at : min(at + CHUNK, stop)]
