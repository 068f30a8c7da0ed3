"""The agent: all parts put together, one process for each site."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fl_runtime import version
from fl_runtime.agent import transfer
from fl_runtime.agent.busy import Busy
from fl_runtime.agent.clients import serve_clients
from fl_runtime.agent.isolation import means
from fl_runtime.agent.jobs import SiteJobs
from fl_runtime.agent.journal import ASSIGNED, CLOSED, DONE, READY, Journal, TaskRow
from fl_runtime.agent.link import Link
from fl_runtime.agent.orders import Orders
from fl_runtime.agent.reports import Reports
from fl_runtime.agent.results import Results
from fl_runtime.agent.run import Run
from fl_runtime.agent.shaping import Shaping
from fl_runtime.agent.worker import Worker
from fl_runtime.blobs.space import disk_quota
from fl_runtime.errors import NONSENSE, FlError, ProtocolError, QuotaError, StorageError
from fl_runtime.kit import Kit
from fl_runtime.names import is_job_id, is_task_id, iso
from fl_runtime.patience import again, is_full
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.revocations import RevocationBook

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")

STORAGE_AGAIN_S = 5.0  # between attempts to store what a full disk had no room for


class Agent:
    """`run()` blocks until `stop()`; everything durable lies in `state`."""

    def __init__(self, kit: Kit, state: Path, labels: Mapping[str, str]) -> None:
        self.kit = kit
        self.state = state
        self.started = time.time()
        self.journal = Journal(state, lambda: disk_quota(kit))
        self.socket_path = state / "local.sock"
        self._jobs_worker = Worker("jobs")
        self._down = Worker("download")
        self.link = Link(kit, labels, self._welcomed, self._message)
        self.revocations = RevocationBook(state, kit.path, kit.ca, kit.federation)
        self.link.on_beat = self.revocations.look
        self.shaping = Shaping(self.journal, kit, state, self.link.features)
        self.results = Results(self.journal, self.link, self.shaping, self.run_of)
        self.jobs = SiteJobs(self)
        self.busy = Busy(state, self.jobs.any_unfinished)
        self.reports = Reports(self.link, self.jobs.runs)
        self.exit_code = 0
        self.orders = Orders(kit, state, self.link.send, self.stop, self.revocations.is_revoked)

    def run(self) -> None:
        self.jobs.recover()
        threading.Thread(target=self._look_around, name="means", daemon=True).start()
        clients = serve_clients(self, self.socket_path)
        self.reports.start()
        self.busy.start()
        try:
            self.link.run()
        finally:
            clients.close()
            self.jobs.end_all()
            for part in (self._jobs_worker, self._down, self.results, self.reports, self.busy):
                part.stop()
            self.shaping.close()

    def stop(self, code: int = 0) -> None:
        """End `run()`; the process is to end with this code."""
        self.exit_code = code
        self.link.stop()

    def _look_around(self) -> None:
        """What the machine offers: found out before the first job asks."""
        try:
            offered = means()
            log.info("jobs can be kept apart by: %s", offered)
            if not offered.root and offered.landlock < 2:
                log.warning(
                    "this machine can't isolate jobs (no Landlock, and not root): only scripts that local/policy.yml "
                    "names run, unless it says `isolation: best`"
                )
            self.jobs.capacity.totals()
        except (FlError, OSError, ValueError) as error:
            log.error("%s", error)

    # --- jobs

    def run_of(self, job: str) -> Run | None:
        return self.jobs.run_of(job)

    # --- the link

    def _welcomed(self) -> None:
        for run in self.jobs.runs():
            self.link.send(site_state=pb.SiteState(job=run.job, state="running"))
        self._jobs_worker.do(self.jobs.tell_figures)
        self.reports.welcomed()
        self.results.welcomed()

    def _message(self, message: pb.ToParticipant) -> None:
        kind = message.WhichOneof("body")
        body = getattr(message, kind) if kind else None
        job, task = getattr(body, "job", None), getattr(body, "task", None)
        if (job is not None and not is_job_id(job)) or (task is not None and not is_task_id(task)):
            raise ProtocolError("A message names what can be no job or task", why=f"{kind}: {job!r}, {task!r}")
        if kind == "job_start":
            self._jobs_worker.do(lambda: self._storing(message, lambda: self.jobs.start(message.job_start)))
        elif kind == "job_stop":
            self._jobs_worker.do(lambda: self._storing(message, lambda: self.jobs.stop(message.job_stop)))
        else:
            self._storing(message, lambda: self._handle(message))

    def _storing(self, message: pb.ToParticipant, action: Callable[[], None]) -> None:
        """Act on a message; where a full disk or a transfer that broke prevents that, it is taken again later."""
        kind = message.WhichOneof("body")
        try:
            action()
        except grpc.RpcError as error:
            log.info("%s: a transfer broke off: %s", kind, error.code().name)
            if self.link.connected and error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                again(lambda: self._message(message), transfer.AGAIN_S)
        except (ProtocolError, *NONSENSE) as error:
            log.error("the server sent a message (%s) that makes no sense: %r", kind, error)
            log.debug("where:", exc_info=True)
        except Exception as error:
            if not is_full(error):
                log.exception("a message of the server could not be handled: %s", kind)
                return
            log.error("%s of the server waits: %s", kind, error)
            again(lambda: self._message(message), STORAGE_AGAIN_S)

    def _handle(self, message: pb.ToParticipant) -> None:
        kind = message.WhichOneof("body")
        if kind == "task":
            self._task(message.task)
        elif kind == "task_cancel":
            self._cancelled(message.task_cancel)
        elif kind == "result_ack":
            self.results.acked(message.result_ack)
        elif kind == "report_have":
            self.reports.have(message.report_have)
        elif kind == "reserve":
            self.jobs.reserve(message.reserve)
        elif kind == "release":
            self.jobs.capacity.release(message.release.job, only_lease=True)
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
                state=READY if payload is None or (staged is not None and not self.shaping.needs(task)) else ASSIGNED,
            )
            if any(not blobs.has(blob) for blob in row.more):
                row.state = ASSIGNED
            with self.journal.db.tx():
                if staged is not None:
                    blobs.register(*staged, owner)
                known = self.journal.assign(row)
            if refused := self.shaping.refuses(row.name):
                log.warning("%s: %s is not done here: %s", row.job, row.id, refused)
                self.journal.done(row.id, None, {}, refused)
                known = self.journal.task(row.id) or known
        if known.state in (DONE, CLOSED):
            self.results.upload()
        elif known.state == READY and (payload is None or self.journal.blobs.has(payload)):
            self._deliver(known)
        else:
            waiting = known
            self._down.do(lambda: self._bring(waiting, task))

    def _bring(self, task: TaskRow, pushed: pb.Task) -> None:
        """Fetch what a task needs; without room for it the task fails (a quota) or waits (a full disk)."""
        try:
            self._fetch(task, pushed)
        except QuotaError as error:
            log.error("%s: %s can't begin: %s", task.job, task.id, error)
            self.journal.done(task.id, None, {}, str(error))
            self.results.upload()
        except (StorageError, OSError) as error:  # also one of the system's own: a disk that fails may be back
            log.error("%s: %s waits: %s", task.job, task.id, error)
            again(lambda: self._bring_again(task, pushed), STORAGE_AGAIN_S)
        except grpc.RpcError as error:
            refused = error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
            log.info("%s: %s did not come: %s", task.job, task.id, error.code().name)
            if not refused and self.link.connected:  # else the server pushes it again when it wants that
                again(lambda: self._bring_again(task, pushed), transfer.AGAIN_S)

    def _bring_again(self, task: TaskRow, pushed: pb.Task) -> None:
        known = self.journal.task(task.id)
        if known is not None and known.state == ASSIGNED:
            self._down.do(lambda: self._bring(known, pushed))

    def _fetch(self, task: TaskRow, pushed: pb.Task) -> None:
        stub = self.link.bulk()
        if stub is None:
            return  # the server pushes the task again when we are back
        for more in task.more:
            query = pb.BlobQuery(blob=more, job=task.job, task=task.id)
            transfer.fetch(stub, self.journal.blobs, query, f"job:{task.job}:task:{task.id}:with", self.link)
        if task.payload is None:
            self.journal.ready(task.id, None, task.meta)
            self._deliver(task)
            return
        # what was pushed now, not what was noted at first: after a loss it may come in another form
        blob, owner = pushed.payload.blob, f"job:{task.job}:task:{task.id}:payload"
        shaped = self.shaping.needs(pushed)
        query = pb.BlobQuery(blob=blob, job=task.job, task=task.id)
        transfer.fetch(stub, self.journal.blobs, query, owner + ":wire" if shaped else owner, self.link)
        if not shaped:
            self.journal.ready(task.id, blob, task.meta)
        else:
            try:
                arrived = self.shaping.arrive(task, pushed.payload)
            except FlError as error:
                if is_full(error):
                    raise
                log.error("%s: %s can't begin: %s", task.job, task.id, error)
                self.journal.done(task.id, None, {}, str(error))
                self.results.upload()
                return
            if arrived is None:
                self.link.send(need_full=pb.NeedFull(job=task.job, task=task.id))
                return
        self._deliver(self.journal.task(task.id) or task)

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

    def _cancelled(self, cancel: pb.TaskCancel) -> None:
        task = self.journal.task(cancel.task)
        if task is None:
            return
        run = self.run_of(task.job)
        if cancel.unless_begun and (task.state == DONE or (run is not None and run.begun(task.id))):
            self.shaping.late(task)  # a late result is of use
            return
        if run is not None:
            run.cancel(task.id)
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
            "jobs": [run.job for run in self.jobs.runs()],
            "error": {"kind": error.kind, "what": error.what, "why": error.why, "next": error.next_step}
            if error
            else None,
        }
