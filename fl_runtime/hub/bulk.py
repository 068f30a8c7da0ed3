"""The hub's side of the service Blobs: each call needs a grant, bytes go raw, a few streams at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from fl_runtime.blobs import Incoming, Manifest
from fl_runtime.errors import FlError, ProtocolError, QuotaError, StorageError
from fl_runtime.hub.roles import may_not
from fl_runtime.hub.state import FAILED, FINAL, OPEN, RECEIVING
from fl_runtime.names import CHUNK, LEAF
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

_MAX_LEAVES = 4 * 1024 * 1024  # 16 TiB


class BulkService:
    """Describe, Offer, Pull, Push. An id grants nothing: the caller names job and task, the store decides."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._turnstile = hub.turnstile

    # --- grants

    def _may_read(self, identity: Identity, query: pb.BlobQuery) -> bool:
        store = self._hub.store
        job = store.job(query.job)
        if job is None:
            return False
        if identity.role == "admin":
            if may_not(identity, "read", job) is not None:
                return False
            if query.blob == job.bundle:  # to be cloned
                return True
            boundaries = store.boundaries(job.id)
            best = boundaries[-1].state["tensors"].get("best") if boundaries else None
            return query.blob.hex() == best or any(boundary.model == query.blob for boundary in boundaries)
        if identity.role != "site" or identity.name not in store.sites(job.id):
            return False
        if not query.task:
            return query.blob == job.bundle
        task = store.task(query.task)
        if task is None or task.site != identity.name or task.job != job.id or task.state != OPEN:
            return False
        call = store.call(task.job, task.round, task.index)
        return call is not None and (
            query.blob.hex() in call.meta.get("blobs", {}).values() or query.blob in self._hub.wires.readable(call)
        )

    def _may_write(self, identity: Identity, job_id: str, task_id: str, blob: bytes) -> str | None:
        """The owner under which the blob may be stored; None = no."""
        store = self._hub.store
        job = store.job(job_id)
        if job is None:
            return None
        if not task_id:
            own = identity.role == "admin" and identity.name == job.submitter
            return f"job:{job.id}:bundle" if own and job.state == RECEIVING and blob == job.bundle else None
        task = store.task(task_id)
        if identity.role != "site" or task is None or task.site != identity.name or task.job != job.id:
            return None
        if task.state != OPEN and self._hub.board.late.wanted(task):
            return self._hub.board.late.owner(job.id, identity.name)
        return f"job:{job.id}:task:{task.id}" if task.state == OPEN and job.state not in FINAL else None

    def _refuse(self, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no grant for this blob")

    # --- methods

    def describe(self, query: pb.BlobQuery, context: grpc.ServicerContext) -> pb.Manifest:
        identity = self._hub.gate.admit(context, ("site", "admin"))
        if not self._may_read(identity, query):
            self._refuse(context)
        manifest = self._hub.blobs.manifest(query.blob)
        if manifest is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "the blob is gone")
        return pb.Manifest(length=manifest.length, leaves=manifest.leaves)

    def offer(self, request: pb.OfferRequest, context: grpc.ServicerContext) -> pb.OfferReply:
        identity = self._hub.gate.admit(context, ("site", "admin"))
        manifest = self._manifest(request.manifest, context)
        try:
            with self._hub.store.tx():  # a job does not end between the two
                owner = self._may_write(identity, request.job, request.task, manifest.id)
                if owner is None:
                    self._refuse(context)
                    raise AssertionError
                known = self._knows(identity, request, manifest.id, owner)
                incoming = self._hub.blobs.receive(manifest, owner, sender=identity.name, known=known)
            missing = incoming.missing() if incoming is not None else []
            if not missing:
                if incoming is not None:
                    self._hub.blobs.finish(incoming)
                self._arrived(request.job, request.task)
        except StorageError as error:
            self._no_room(error, request.job, context)
        ranges = [pb.LeafRange(first=first, count=count) for first, count in missing]
        return pb.OfferReply(missing=ranges, complete=not ranges)

    def _knows(self, identity: Identity, request: pb.OfferRequest, blob: bytes, owner: str) -> bool:
        """May the sender learn that the content is here? Only what it was given, or has sent in this job, it may."""
        owners = self._hub.blobs.owners(blob)
        if owner in owners or identity.role == "admin":
            return True
        task = self._hub.store.task(request.task)
        call = self._hub.store.call(task.job, task.round, task.index) if task is not None else None
        sent = any(one.startswith(f"job:{request.job}:task:") and one.endswith(f"/{identity.name}") for one in owners)
        return sent or (call is not None and blob in self._hub.wires.readable(call))

    def _no_room(self, error: StorageError, job: str, context: grpc.ServicerContext) -> None:
        """A full disk may be freed, and the sender tries again; a quota is somebody's will, and ends the job."""
        if isinstance(error, QuotaError):
            self._hub.jobs.end(job, FAILED, f"the server can't store what was sent: {error}")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _manifest(self, message: pb.Manifest, context: grpc.ServicerContext) -> Manifest:
        try:
            manifest = Manifest(message.length, message.leaves)
        except FlError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if manifest.count > _MAX_LEAVES or manifest.length == 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the blob is empty or too large")
        return manifest

    def pull(self, request: pb.PullRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        identity = self._hub.gate.admit(context, ("site", "admin"))
        if not self._may_read(identity, request.query):
            self._refuse(context)
        blobs = self._hub.blobs
        manifest = blobs.manifest(request.query.blob)
        if manifest is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "the blob is gone")
        first, end = request.range.first, request.range.first + request.range.count
        if end > manifest.count or first >= end:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "the range lies outside of the blob")
        start, stop = first * LEAF, min(end * LEAF, manifest.length)
        inline = blobs.inline(request.query.blob)
        with self._turnstile.enter(identity.name, context.is_active):
            if inline is not None:
                yield inline[start:stop]
                return
            yield from read_chunks(str(blobs.path(request.query.blob)), start, stop)

    def push(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> pb.PushReply:
        identity = self._hub.gate.admit(context, ("site", "admin"))
        try:
            header = pb.PushHeader.FromString(next(frames))
        except (StopIteration, ValueError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first frame is not a header")
        query = header.query
        owner = self._may_write(identity, query.job, query.task, query.blob)
        incoming = self._hub.blobs.incoming(query.blob, identity.name)
        granted = self._hub.blobs.owners(query.blob) if incoming is None else incoming.owners
        if owner is None or owner not in granted:
            self._refuse(context)
        leaves = header.range.count
        if incoming is not None and not incoming.complete:
            leaves = self._take(frames, incoming, header.range, identity, context)
        try:  # here too what came whole before and could not be noted then
            if incoming is None or incoming.complete:
                if incoming is not None:
                    self._hub.blobs.finish(incoming)
                self._arrived(query.job, query.task)
        except StorageError as error:
            self._no_room(error, query.job, context)
        return pb.PushReply(leaves=leaves)

    def _take(
        self,
        frames: Iterator[bytes],
        incoming: Incoming,
        wanted: pb.LeafRange,
        identity: Identity,
        context: grpc.ServicerContext,
    ) -> int:
        """Take a range's chunks; how many leaves arrived whole."""
        try:
            with self._turnstile.enter(identity.name, context.is_active):
                context.send_initial_metadata(())  # the go-ahead: whoever is queued has nothing in our memory
                writer = incoming.writer(wanted.first, wanted.count)
                for chunk in frames:
                    writer.take(chunk)
        except FlError as error:
            context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except OSError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server can't store it: {error.strerror}")
        finally:
            with contextlib.suppress(StorageError):  # then a crash costs what was not noted
                incoming.journal()
        return writer.leaves

    def _arrived(self, job: str, task: str) -> None:
        if not task:
            self._hub.bundle_arrived(job)


def read_chunks(path: str, start: int, stop: int) -> Iterator[bytes]:
    """A file's bytes from `start` to `stop` in wire chunks, none of which crosses the border of a leaf.

    It is read, not mapped: a file that became shorter would end us with SIGBUS.

    Raises:
        ProtocolError: it became shorter.
    """
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_SEQUENTIAL)
        for at in range(start, stop, CHUNK):  # CHUNK divides LEAF
            wanted = min(CHUNK, stop - at)
            chunk = os.pread(fd, wanted, at)
            if len(chunk) != wanted:
                raise ProtocolError("A blob's file is shorter than the blob")
            yield chunk
