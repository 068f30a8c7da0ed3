"""The agent: all parts put together, one process for each site."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_runtime import version
from fl_runtime.agent import policy, transfer
from fl_runtime.agent.clients import serve_clients
from fl_runtime.agent.interpreter import Interpreter, job_interpreter
from fl_runtime.agent.journal import ASSIGNED, CLOSED, DONE, READY, Journal, TaskRow
from fl_runtime.agent.link import Link
from fl_runtime.agent.orders import Orders
from fl_runtime.agent.reports import Reports
from fl_runtime.agent.results import Results
from fl_runtime.agent.run import Run
from fl_runtime.agent.shaping import Shaping
from fl_runtime.agent.worker import Worker
from fl_runtime.errors import FlError, ProtocolError, RefusedError
from fl_runtime.job.bundle import unpack
from fl_runtime.job.spec import JobSpec, parse_spec, read_spec
from fl_runtime.kit import Kit
from fl_runtime.names import iso
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.revocations import RevocationBook

log = logging.getLogger("fedspan.agent")


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
        self._jobs_worker = Worker("jobs")
        self._down = Worker("download")
        self.link = Link(kit, labels, self._welcomed, self._message)
        self.revocations = RevocationBook(state, kit.path, kit.ca, kit.federation)
        self.link.on_beat = self.revocations.look
        self.shaping = Shaping(self.journal, kit, state, self.link.features)
        self.results = Results(self.journal, self.link, self.shaping)
        self.reports = Reports(self.link, self.runs)
        self.exit_code = 0
        self.orders = Orders(kit, state, self.link.send, self.stop, self.revocations.is_revoked)

    def run(self) -> None:
        self._recover()
        clients = serve_clients(self, self.socket_path)
        self.reports.start()
        try:
            self.link.run()
        finally:
            clients.close()
            for run in self.runs():
                run.end()
            for part in (self._jobs_worker, self._down, self.results, self.reports):
                part.stop()
            self.shaping.close()

    def stop(self, code: int = 0) -> None:
        """End `run()`; the process is to end with this code."""
        self.exit_code = code
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
        def interpreter() -> Interpreter:
            return job_interpreter(self.kit.resources(), self.state, self.kit.name)

        run = Run(job, spec, folder, data, self.journal, self.socket_path, self._run_ended, interpreter)
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
        self.reports.flush(run)
        self.link.send(site_state=pb.SiteState(job=run.job, state=state, why=why))

    def _stop_job(self, stop: pb.JobStop) -> None:
        with self._lock:
            run = self._runs.pop(stop.job, None)
        if run is not None:
            run.end()
            self.reports.flush(run)
            log.info("%s: over: %s %s", stop.job, stop.state, stop.why)
        self.shaping.end(stop.job)
        self.link.send(site_state=pb.SiteState(job=stop.job, state="ended"))
        self.journal.end_job(stop.job, stop.state)
        self.journal.blobs.collect()
        shutil.rmtree(self.state / "jobs" / stop.job, ignore_errors=True)

    # --- the link

    def _welcomed(self) -> None:
        for run in self.runs():
            run.log_offset = None
            self.link.send(site_state=pb.SiteState(job=run.job, state="running"))
        self.reports.welcomed()
        self.results.welcomed()

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
            self.results.acked(message.result_ack)
        elif kind == "order":
            self.orders.take(message.order)
        elif kind == "revocations":
            self._revocations(message.revocations)

    def _revocations(self, message: pb.Revocations) -> None:
        """The server hands on what the CA has signed; anything else is noted and thrown away."""
        try:
            self.revocations.offer(message.document, message.signature)
        except FlError as error:
            log.error("the server sent a list of revoked certificates that is not one: %s", error)

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
            self.results.upload()
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
