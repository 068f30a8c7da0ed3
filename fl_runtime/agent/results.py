"""Results on their way to the server: sent again after every break until it has confirmed them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from fl_runtime.agent import transfer
from fl_runtime.agent.journal import Journal, TaskRow
from fl_runtime.agent.link import Link
from fl_runtime.agent.run import Run
from fl_runtime.agent.shaping import Shaping
from fl_runtime.agent.worker import Worker
from fl_runtime.errors import StorageError
from fl_runtime.names import GO_AHEAD, INLINE_LIMIT
from fl_runtime.patience import again, patiently
from fl_runtime.proto import fedspan_pb2 as pb

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")


class Results:
    """What the journal holds as done and the server has not confirmed."""

    def __init__(self, journal: Journal, link: Link, shaping: Shaping, run_of: Callable[[str], Run | None]) -> None:
        self._run_of = run_of
        self._journal = journal
        self._link = link
        self._shaping = shaping
        self._worker = Worker("upload")
        self._shaper = Worker("shaping")
        self._sent: set[str] = set()  # on their way over this connection
        self._in_shaping: set[str] = set()
        self._stopping = False

    def welcomed(self) -> None:
        """A new connection: nothing is on its way over it yet."""
        self._sent.clear()
        self.upload()

    def stop(self) -> None:
        self._stopping = True
        self._worker.stop()
        self._shaper.stop()

    def upload(self) -> None:
        """Send what the server has not confirmed; filters and codecs come first, and need no connection."""
        self._worker.do(self._upload_all)

    def _upload_all(self) -> None:
        for task in self._journal.undelivered():
            if task.id in self._sent:
                continue
            if not self._shaping.ready(task):
                self._shape(task)
                continue
            try:
                if self._link.connected and self._send_result(task):
                    self._sent.add(task.id)
            except (grpc.RpcError, StorageError) as error:
                why = error.code().name if isinstance(error, grpc.RpcError) else str(error)
                log.info("%s: %s did not get through: %s", task.job, task.id, why)
                if self._link.connected:  # else it goes over the next connection
                    again(self.upload, transfer.AGAIN_S)

    def _shape(self, task: TaskRow) -> None:
        if task.id in self._in_shaping:
            return
        self._in_shaping.add(task.id)

        def work() -> None:
            try:
                patiently(lambda: self._shaping.shape(task), lambda: not self._stopping, task.job)
            finally:
                self._in_shaping.discard(task.id)
            self.upload()

        self._shaper.do(work)

    def _send_result(self, task: TaskRow) -> bool:
        out = self._shaping.outgoing(task)
        payload = None
        if out.blob is not None:
            manifest = self._journal.blobs.manifest(out.blob)
            inline = self._journal.blobs.inline(out.blob)
            if manifest is None:
                log.error("%s: the result of %s is gone", task.job, task.id)
                return True
            if (inline is None or manifest.length > INLINE_LIMIT) and not self._deliver(task, out.blob):
                return task.id not in {left.id for left in self._journal.undelivered()}
            payload = pb.Payload(
                blob=out.blob,
                length=manifest.length,
                inline=inline or b"",
                form=out.form,
                plain=out.plain,
                base=out.base,
            )
        return self._link.send(
            task_result=pb.TaskResult(
                job=task.job,
                task=task.id,
                attempt=task.attempt,
                meta=json.dumps(out.answer).encode(),
                payload=payload,
                error=out.error,
                holds=self._shaping.holds(task.job),
            )
        )

    def _deliver(self, task: TaskRow, blob: bytes) -> bool:
        """Bring the content to the server; False when there is no link, or nobody wants it any more."""
        stub = self._link.bulk()
        if stub is None:
            return False
        try:
            query = pb.BlobQuery(blob=blob, job=task.job, task=task.id)
            placed = GO_AHEAD in self._link.features()
            transfer.deliver(stub, self._journal.blobs, query, self._link, go_ahead=placed)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                log.info("%s: the server does not want %s any more", task.job, task.id)
                self._journal.close_task(task)
                return False
            raise
        return True

    def acked(self, ack: pb.ResultAck) -> None:
        task = self._journal.task(ack.task)
        if task is None:
            return
        if not ack.accepted:
            log.warning("%s: the server refuses %s: %s", ack.job, ack.task, ack.why)
        run = self._run_of(ack.job)
        if run is not None and run.holds(task.id):
            self._journal.settle_task(task)
            run.afterwards(task.id, lambda: self._journal.close_task(task))
        else:
            self._journal.close_task(task)
        self._sent.discard(ack.task)
