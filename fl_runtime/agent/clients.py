"""The agent's end of the Client API: what attached job scripts ask for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_runtime import localsock
from fl_runtime.agent.journal import DONE, TaskRow
from fl_runtime.agent.run import Run
from fl_runtime.errors import FlError

if TYPE_CHECKING:
    from fl_runtime.agent.main import Agent

log = logging.getLogger("fedspan.agent")


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
        run = self._agent.run_of(self._job)
        if run is None or run.epoch != self._epoch:
            self._connection.send({"error": "this launch of the job is over"})
            return
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
                self._connection.send({"file": str(run.place.new_file(int(message["size"])))})
            elif op == "metric":
                self._agent.reports.metric(run.job, message["items"])
            elif op == "bye":
                return
            else:
                self._connection.send({"error": f"unknown operation {op!r}"})

    def _next(self, run: Run, message: dict[str, Any]) -> None:
        try:
            task = run.next_task(self._rank, self._epoch, message.get("after"))
        except RuntimeError as error:
            self._connection.send({"error": str(error)})
            return
        if task is None:
            self._connection.send({"task": None})
            return
        inline = self._agent.journal.blobs.inline(task.payload) if task.payload else None
        body = {
            "id": task.id,
            "attempt": task.attempt,
            "name": task.name,
            "meta": task.meta,
            "file": str(run.show(task)) if task.payload and inline is None else None,
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
                self._connection.send({"error": f"the result can't be stored: {error}"})
                return
        run.answered(task.id)
        self._connection.send({"ok": True})
        self._agent.results.upload()

    def _commit(self, run: Run, task: TaskRow, message: dict[str, Any], binary: bytes) -> None:
        journal = self._agent.journal
        staged = None
        if message.get("file"):
            staged = journal.blobs.stage_file(run.place.take_back(Path(message["file"])))
        elif message.get("tensors"):
            staged = journal.blobs.stage_bytes(binary)
        with journal.db.tx():
            blob = journal.blobs.register(*staged, f"job:{task.job}:task:{task.id}:result") if staged else None
            journal.done(task.id, blob, message["meta"])
        log.info("%s: %s is done (%s)", task.job, task.id, DONE)
