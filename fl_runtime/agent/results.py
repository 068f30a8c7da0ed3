"""Results on their way to the server: sent again after every break until it has confirmed them."""

from __future__ import annotations

import json
import logging

from fl_runtime.agent import transfer
from fl_runtime.agent.journal import Journal, TaskRow
from fl_runtime.agent.link import Link
from fl_runtime.agent.worker import Worker
from fl_runtime.names import INLINE_LIMIT
from fl_runtime.proto import fedspan_pb2 as pb

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")


class Results:
    """What the journal holds as done and the server has not confirmed."""

    def __init__(self, journal: Journal, link: Link) -> None:
        self._journal = journal
        self._link = link
        self._worker = Worker("upload")
        self._sent: set[str] = set()  # on their way over this connection

    def welcomed(self) -> None:
        """A new connection: nothing is on its way over it yet."""
        self._sent.clear()
        self.upload()

    def stop(self) -> None:
        self._worker.stop()

    def upload(self) -> None:
        """Send what the server has not confirmed."""
        if self._link.connected:
            self._worker.do(self._upload_all)

    def _upload_all(self) -> None:
        for task in self._journal.undelivered():
            if task.id not in self._sent and self._send_result(task):
                self._sent.add(task.id)

    def _send_result(self, task: TaskRow) -> bool:
        stub = self._link.bulk() if task.result is not None else None
        payload = None
        if task.result is not None:
            manifest = self._journal.blobs.manifest(task.result)
            inline = self._journal.blobs.inline(task.result)
            if manifest is None:
                log.error("%s: the result of %s is gone", task.job, task.id)
                return True
            if inline is None or manifest.length > INLINE_LIMIT:
                if stub is None:
                    return False
                try:
                    query = pb.BlobQuery(blob=task.result, job=task.job, task=task.id)
                    transfer.deliver(stub, self._journal.blobs, query)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                        log.info("%s: the server does not want %s any more", task.job, task.id)
                        self._journal.close_task(task)
                        return True
                    raise
            payload = pb.Payload(blob=task.result, length=manifest.length, inline=inline or b"")
        return self._link.send(
            task_result=pb.TaskResult(
                job=task.job,
                task=task.id,
                attempt=task.attempt,
                meta=json.dumps(task.answer).encode(),
                payload=payload,
                error=task.error,
            )
        )

    def acked(self, ack: pb.ResultAck) -> None:
        task = self._journal.task(ack.task)
        if task is None:
            return
        if not ack.accepted:
            log.warning("%s: the server refuses %s: %s", ack.job, ack.task, ack.why)
        self._journal.close_task(task)
        self._sent.discard(ack.task)
