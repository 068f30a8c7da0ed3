"""The agent's end of the Client API: what attached job scripts ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fl_runtime import localsock
from fl_runtime.agent.journal import DONE, TaskRow
from fl_runtime.agent.run import Run
from fl_runtime.blobs.described import described
from fl_runtime.errors import FlError, QuotaError
from fl_runtime.models.meta import TooLargeError, check_size
from fl_runtime.patience import patiently

if TYPE_CHECKING:
    from fl_runtime.agent.main import Agent

log = logging.getLogger("fedspan.agent")
_T = TypeVar("_T")


def serve_clients(agent: Agent, path: Path, job: str | None = None, uid: int | None = None) -> localsock.Server:
    """Listens on `state/local.sock` for who asks for the status and for what attaches by itself, or for one job.

    Args:
        job: whoever attaches belongs to this job, whatever it says; run as `uid` (None = our user).
    """

    def attach(connection: localsock.Connection, hello: dict[str, Any]) -> None:
        _Client(agent, connection, hello if job is None else {**hello, "job": job}).serve()

    return localsock.Server(path, agent.status, attach, log, uid)


class _Client:
    """One process of one job."""

    def __init__(self, agent: Agent, connection: localsock.Connection, hello: dict[str, Any]) -> None:
        self._agent = agent
        self._connection = connection
        self._hello = hello
        self._job = str(hello.get("job"))
        self._epoch = int(hello.get("epoch", 0))
        self._rank = int(hello.get("rank", 0))

    def serve(self) -> None:
        run = self._run()
        if isinstance(run, str):
            self._connection.send({"error": run})
            return
        watched = self._hello.get("watch")
        if watched is not None:
            self._connection.send({"watching": watched})
            if run.wait_cancelled(str(watched)):
                self._connection.send({"cancelled": True})
            return
        pid = self._connection.peer_pid
        other = run.enter(self._rank, pid)
        if other is not None:
            self._connection.send({"error": f"process {other} is attached as rank {self._rank} of this job already"})
            return
        try:
            self._serve(run)
        finally:
            run.leave(self._rank, pid)

    def _run(self) -> Run | str:
        """The job that the process belongs to; else why it is refused."""
        if not self._hello.get("attach"):
            run = self._agent.run_of(self._job)
            if run is None or run.epoch != self._epoch:
                return "this launch of the job is over"
            if not run.owns(self._connection.peer_pid):  # jobs without users of their own can find each other's sockets
                return "this process is not of the job that it names"
            return run
        runs = self._agent.jobs.runs()  # without users of their own, programs of jobs reach this socket too
        if any(
            run.owns(self._connection.peer_pid) for run in runs
        ):  # without users of their own they reach this socket
            return "a job's program can't attach itself to another job"
        waiting = [run for run in runs if run.spec.attach and not run.over]
        if self._job:
            waiting = [run for run in waiting if run.job == self._job]
        if len(waiting) != 1:
            if waiting:
                names = ", ".join(run.job for run in waiting)
                return f"several jobs wait for a process here, name one: flare.init(job=...): {names}"
            who = f"the job {self._job} does not wait" if self._job else "no job waits"
            return f"{who} for a process here (attach: true)"
        self._job, self._epoch = waiting[0].job, waiting[0].epoch
        return waiting[0]

    def _serve(self, run: Run) -> None:
        run.world = max(1, int(self._hello.get("world", 1)))
        kit = self._agent.kit
        self._connection.send({**run.info(), "site": kit.name, "federation": kit.federation})
        while (received := self._connection.receive()) is not None:
            message, binary = received
            op = message.get("op")
            if op == "next":
                self._next(run, message)
            elif op == "result":
                self._result(run, message, binary)
            elif op == "spool":
                self._spool(run, int(message["size"]))
            elif op == "bye":
                return
            else:
                self._connection.send({"error": f"unknown operation {op!r}"})

    def _next(self, run: Run, message: dict[str, Any]) -> None:
        try:
            task = run.next_task(self._rank, self._epoch, message.get("after"), message.get("timeout"))
        except TimeoutError:
            self._connection.send({"task": None, "timeout": True})
            return
        except RuntimeError as error:
            self._connection.send({"error": str(error)})
            return
        if task is None:
            self._connection.send({"task": None})
            return
        blobs = self._agent.journal.blobs
        inline = blobs.inline(task.payload) if task.payload else None
        more = {key: bytes.fromhex(blob) for key, blob in (task.meta.get("blobs") or {}).items()}
        body = {
            "id": task.id,
            "attempt": task.attempt,
            "name": task.name,
            "meta": task.meta,
            "file": str(run.show(task.payload)) if task.payload and inline is None else None,
            "blobs": {key: described(blobs, blob, run.show) for key, blob in more.items()},
        }
        self._connection.send({"task": body}, inline or b"")

    def _result(self, run: Run, message: dict[str, Any], binary: bytes) -> None:
        """Commit a result, then say so. Said again after a break, it is answered again."""
        if run.epoch != self._epoch:
            self._connection.send({"error": "this process is of an older launch of the job"})
            return
        journal = self._agent.journal
        task = journal.task(str(message["task"]))
        if task is None or task.job != run.job:
            self._connection.send({"error": "there is no such task"})
            return
        if task.state in ("assigned", "ready"):
            try:
                self._commit(run, task, message, binary)
            except (OSError, FlError) as error:
                self._no_room(run, error, task.id)
                return
        run.answered(task.id)
        self._connection.send({"ok": True})
        self._agent.results.upload()

    def _spool(self, run: Run, size: int) -> None:
        try:
            file = self._stored(run, lambda: run.place.new_file(size))
        except (OSError, FlError) as error:
            self._no_room(run, error, run.at_work)
            return
        self._connection.send({"file": str(file)})

    def _no_room(self, run: Run, error: Exception, task: str | None) -> None:
        """The script is told; what would find no room later either (a quota, a message's size) is the task's result."""
        why = str(error) if isinstance(error, TooLargeError) else f"the result can't be stored: {error}"
        if isinstance(error, (QuotaError, TooLargeError)) and task is not None:
            self._agent.journal.done(task, None, {}, why)
            run.answered(task)
            self._agent.results.upload()
        self._connection.send({"error": why})

    def _stored(self, run: Run, action: Callable[[], _T]) -> _T:
        """While the disk is full the script waits in its `send()`."""
        return patiently(action, lambda: not run.over and run.epoch == self._epoch, self._job)

    def _commit(self, run: Run, task: TaskRow, message: dict[str, Any], binary: bytes) -> None:
        journal, blobs = self._agent.journal, self._agent.journal.blobs
        check_size(message["meta"], f"the result of {task.id}")
        staged = None
        if message.get("file"):
            mine = self._stored(run, lambda: run.place.take_back(Path(message["file"])))
            staged = self._stored(run, lambda: blobs.stage_file(mine))
        elif message.get("tensors"):
            staged = self._stored(run, lambda: blobs.stage_bytes(binary))

        def commit() -> None:
            with journal.db.tx():
                blob = blobs.register(*staged, f"job:{task.job}:task:{task.id}:result") if staged else None
                journal.done(task.id, blob, message["meta"])

        try:
            self._stored(run, commit)
        except BaseException:
            if staged is not None:
                blobs.discard(*staged)
            raise
        log.info("%s: %s is done (%s)", task.job, task.id, DONE)
