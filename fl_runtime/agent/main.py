"""The agent: all parts put together, one process for each site."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fl_runtime import version
from fl_runtime.agent import policy, transfer
from fl_runtime.agent.clients import serve_clients
from fl_runtime.agent.journal import ASSIGNED, CLOSED, DONE, READY, Journal, TaskRow
from fl_runtime.agent.link import Link
from fl_runtime.agent.run import Run
from fl_runtime.errors import FlError, ProtocolError, RefusedError
from fl_runtime.job.bundle import unpack
from fl_runtime.job.spec import JobSpec, parse_spec, read_spec
from fl_runtime.kit import Kit
from fl_runtime.names import INLINE_LIMIT, iso
from fl_runtime.proto import fedspan_pb2 as pb

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")
_LOG_EVERY_S = 0.25
_LOG_PIECE = 64 * 1024


class _Worker:
    """One thread that does things in order."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, action: Callable[[], None]) -> None:
        self._queue.put(action)

    def stop(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                action()
            except grpc.RpcError as error:
                log.info("a transfer broke off: %s", error.code().name if hasattr(error, "code") else error)
            except Exception:
                log.exception("something failed")


class Agent:
    """`run()` blocks until `stop()`; everything durable lies in `state`."""

    def __init__(self, kit: Kit, state: Path, labels: Mapping[str, str]) -> None:
        self.kit = kit
        self.state = state
        self.started = time.time()
        self.journal = Journal(state)
        self.socket_path = state / "local.sock"
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._metrics: list[tuple[str, list[Mapping[str, Any]]]] = []
        self._jobs_worker = _Worker("jobs")
        self._down = _Worker("download")
        self._up = _Worker("upload")
        self._sent: set[str] = set()  # results that are on their way over this connection
        self.link = Link(kit, labels, self._welcomed, self._message)

    def run(self) -> None:
        self._recover()
        clients = serve_clients(self, self.socket_path)
        threading.Thread(target=self._ship_logs, name="logs", daemon=True).start()
        try:
            self.link.run()
        finally:
            clients.close()
            for run in self.runs():
                run.end()
            for worker in (self._jobs_worker, self._down, self._up):
                worker.stop()

    def stop(self) -> None:
        self._stopping.set()
        self.link.stop()

    # --- jobs

    def runs(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def run_of(self, job: str) -> Run | None:
        with self._lock:
            return self._runs.get(job)

    def _recover(self) -> None:
        """Take up what an earlier life left: adopt living processes; the rest waits for the server's word."""
        for row in self.journal.jobs("accepted"):
            folder = self.state / "jobs" / row.id
            if not (folder / "bundle").exists():
                continue
            spec = parse_spec(row.spec)
            run = self._new_run(row.id, spec, folder, {name: str(path) for name, path in self.kit.data().items()})
            run.epoch = row.epoch
            run.requeue()
            if row.process is not None and row.process.alive():
                run.adopt(row.process, row.epoch)

    def _new_run(self, job: str, spec: JobSpec, folder: Path, data: dict[str, str]) -> Run:
        run = Run(job, spec, folder, data, self.journal, self.socket_path, self._run_ended)
        with self._lock:
            self._runs[job] = run
        return run

    def _start(self, start: pb.JobStart) -> None:
        """The server asks this site to take part."""
        try:
            run = self._admit(start)
        except RefusedError as error:
            why = policy.reason(error)
            log.warning("%s: refused: %s", start.job, why)
            known = self.journal.job(start.job)
            if known is None:
                self.journal.add_job(start.job, start.envelope.document, start.bundle.blob, {}, "refused", why)
            self.link.send(job_answer=pb.JobAnswer(job=start.job, accepted=False, why=why))
            return
        run.log_offset = start.log_have
        self.link.send(job_answer=pb.JobAnswer(job=start.job, accepted=True))
        known = self.journal.job(start.job)
        if known is not None and known.state in ("left", "failed"):
            self.link.send(site_state=pb.SiteState(job=start.job, state=known.state, why=known.why))
            return
        run.start()

    def _admit(self, start: pb.JobStart) -> Run:
        known = self.journal.job(start.job)
        fresh = known is None or known.state == "refused"
        ended = known is not None and known.state == "over"
        policy.check_envelope(self.kit, start, known.envelope if known else None, ended)
        present = self.run_of(start.job)
        if present is not None:
            return present
        blobs, bundle = self.journal.blobs, start.bundle
        owner = f"job:{start.job}:bundle"
        if not blobs.has(bundle.blob):
            if bundle.length == len(bundle.inline):
                if blobs.put(bundle.inline, owner) != bundle.blob:
                    raise RefusedError("The job is refused", why="its bundle arrived damaged")
            else:
                stub = self.link.bulk()
                if stub is None:
                    raise ProtocolError("the link broke before the bundle was here")
                transfer.fetch(stub, blobs, pb.BlobQuery(blob=bundle.blob, job=start.job), owner)
        blobs.add_ref(bundle.blob, owner)
        folder = self.state / "jobs" / start.job
        if not (folder / "bundle").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            try:
                unpack(blobs.read(bundle.blob), folder / "unpacking")
            except FlError as error:
                raise RefusedError(error.what, why=error.why) from None
            (folder / "unpacking").rename(folder / "bundle")
        try:
            spec = read_spec(folder / "bundle")
        except FlError as error:
            raise RefusedError("The job is refused", why=str(error)) from None
        data = policy.check_job(self.kit, spec)
        if fresh:
            self.journal.add_job(start.job, start.envelope.document, bundle.blob, spec.document(), "accepted", "")
        return self._new_run(start.job, spec, folder, data)

    def _run_ended(self, run: Run, state: str, why: str) -> None:
        log.warning("%s: %s: %s", run.job, state, why)
        self.journal.set_job(run.job, state, why)
        self._flush_log(run)
        self.link.send(site_state=pb.SiteState(job=run.job, state=state, why=why))

    def _stop_job(self, stop: pb.JobStop) -> None:
        with self._lock:
            run = self._runs.pop(stop.job, None)
        if run is not None:
            run.end()
            self._flush_log(run)
            log.info("%s: over: %s %s", stop.job, stop.state, stop.why)
        self.link.send(site_state=pb.SiteState(job=stop.job, state="ended"))
        self.journal.end_job(stop.job, stop.state)
        self.journal.blobs.collect()
        shutil.rmtree(self.state / "jobs" / stop.job, ignore_errors=True)

    # --- the link

    def _welcomed(self) -> None:
        for run in self.runs():
            run.log_offset = None
            self.link.send(site_state=pb.SiteState(job=run.job, state="running"))
        self._sent.clear()
        with self._lock:
            metrics, self._metrics = self._metrics, []
        for job, items in metrics:
            self.metric(job, items)
        self.upload()

    def _message(self, message: pb.ToParticipant) -> None:
        kind = message.WhichOneof("body")
        if kind == "job_start":
            self._jobs_worker.do(lambda: self._start(message.job_start))
        elif kind == "job_stop":
            self._jobs_worker.do(lambda: self._stop_job(message.job_stop))
        elif kind == "task":
            self._task(message.task)
        elif kind == "task_cancel":
            self._cancelled(message.task_cancel.task)
        elif kind == "result_ack":
            self._acked(message.result_ack)

    # --- tasks

    def _task(self, task: pb.Task) -> None:
        payload = task.payload.blob if task.HasField("payload") and task.payload.blob else None
        known = self.journal.task(task.task)
        if known is None:
            blobs, owner = self.journal.blobs, f"job:{task.job}:task:{task.task}:payload"
            inline = payload is not None and task.payload.length == len(task.payload.inline)
            staged = blobs.stage_bytes(task.payload.inline) if inline else None
            if staged is not None and staged[0].id != payload:
                log.error("%s: a task arrived damaged", task.job)
                return
            row = TaskRow(
                id=task.task,
                job=task.job,
                attempt=task.attempt,
                name=task.name,
                meta=json.loads(task.meta or b"{}"),
                payload=payload,
                length=task.payload.length,
                state=READY if payload is None or staged is not None else ASSIGNED,
            )
            with self.journal.db.tx():
                if staged is not None:
                    blobs.register(*staged, owner)
                known = self.journal.assign(row)
        if known.state in (DONE, CLOSED):
            self.upload()
        elif known.state == READY and (payload is None or self.journal.blobs.has(payload)):
            self._deliver(known)
        else:
            waiting = known
            self._down.do(lambda: self._fetch(waiting))

    def _fetch(self, task: TaskRow) -> None:
        stub = self.link.bulk()
        if stub is None or task.payload is None:
            return  # the server pushes the task again when we are back
        query = pb.BlobQuery(blob=task.payload, job=task.job, task=task.id)
        transfer.fetch(stub, self.journal.blobs, query, f"job:{task.job}:task:{task.id}:payload")
        self.journal.ready(task.id)
        self._deliver(task)

    def _deliver(self, task: TaskRow) -> None:
        """Hand a task to the job's run; one that came before the run was set up is requeued by it."""
        run = self.run_of(task.job)
        if run is not None:
            run.deliver(task)
        else:
            self._jobs_worker.do(lambda: self._deliver_late(task))

    def _deliver_late(self, task: TaskRow) -> None:
        run = self.run_of(task.job)
        if run is not None:
            run.deliver(task)

    def _cancelled(self, task_id: str) -> None:
        task = self.journal.task(task_id)
        if task is None:
            return
        run = self.run_of(task.job)
        if run is not None:
            run.cancel(task_id)
        self.journal.close_task(task)

    # --- results

    def upload(self) -> None:
        """Send what the server has not confirmed."""
        if self.link.connected:
            self._up.do(self._upload_all)

    def _upload_all(self) -> None:
        for task in self.journal.undelivered():
            if task.id not in self._sent and self._send_result(task):
                self._sent.add(task.id)

    def _send_result(self, task: TaskRow) -> bool:
        stub = self.link.bulk() if task.result is not None else None
        payload = None
        if task.result is not None:
            manifest = self.journal.blobs.manifest(task.result)
            inline = self.journal.blobs.inline(task.result)
            if manifest is None:
                log.error("%s: the result of %s is gone", task.job, task.id)
                return True
            if inline is None or manifest.length > INLINE_LIMIT:
                if stub is None:
                    return False
                try:
                    query = pb.BlobQuery(blob=task.result, job=task.job, task=task.id)
                    transfer.deliver(stub, self.journal.blobs, query)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                        log.info("%s: the server does not want %s any more", task.job, task.id)
                        self.journal.close_task(task)
                        return True
                    raise
            payload = pb.Payload(blob=task.result, length=manifest.length, inline=inline or b"")
        return self.link.send(
            task_result=pb.TaskResult(
                job=task.job,
                task=task.id,
                attempt=task.attempt,
                meta=json.dumps(task.answer).encode(),
                payload=payload,
                error=task.error,
            )
        )

    def _acked(self, ack: pb.ResultAck) -> None:
        task = self.journal.task(ack.task)
        if task is None:
            return
        if not ack.accepted:
            log.warning("%s: the server refuses %s: %s", ack.job, ack.task, ack.why)
        self.journal.close_task(task)
        self._sent.discard(ack.task)

    # --- metrics and logs

    def metric(self, job: str, items: list[Mapping[str, Any]]) -> None:
        document = json.dumps(items).encode()
        if not self.link.send(metric=pb.MetricData(job=job, document=document)):
            with self._lock:
                self._metrics.append((job, items))
                del self._metrics[:-10_000]

    def _ship_logs(self) -> None:
        while not self._stopping.wait(_LOG_EVERY_S):
            for run in self.runs():
                self._flush_log(run)

    def _flush_log(self, run: Run) -> None:
        with run.log_lock:
            offset = run.log_offset
            if offset is not None and run.log_path.exists():
                self._send_log(run, offset)

    def _send_log(self, run: Run, offset: int) -> None:
        with open(run.log_path, "rb") as file:
            file.seek(offset)
            while data := file.read(_LOG_PIECE):
                if not self.link.send(log=pb.LogData(job=run.job, offset=offset, data=data)):
                    return
                offset += len(data)
                run.log_offset = offset

    # --- what people see

    def status(self) -> dict[str, Any]:
        """For `python -m fl_runtime status`."""
        error = self.link.error
        return {
            "role": "site",
            "name": self.kit.name,
            "federation": self.kit.federation,
            "version": version(),
            "pid": os.getpid(),
            "started": iso(self.started),
            "connected": self.link.connected,
            "since": iso(self.link.since),
            "server": self.link.server,
            "jobs": [run.job for run in self.runs()],
            "error": {"kind": error.kind, "what": error.what, "why": error.why, "next": error.next_step}
            if error
            else None,
        }
