"""Simulated sites as the server sees them: tasks go to the worker that holds the site, results come back.

Which worker gets which site's task is decided in waiting.py.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_runtime import localsock, processes
from fl_runtime.blobs.described import described
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.simulator.hub import SimHub
from fl_runtime.simulator.waiting import Queue, Site, Worker

log = logging.getLogger("fedspan.simulator")
START_S = 60.0


class Pool:
    """Start with `start()`; tasks come in by `deliver`."""

    def __init__(
        self,
        names: Sequence[str],
        workers: int,
        isolate: bool,
        data: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._queue = Queue(names, workers, isolate)
        self._data = data
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._host: localsock.Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Any = None
        self._closing = False
        self._hub: SimHub | None = None
        self._job = ""
        self.answers = 0

    # --- life

    def start(self, hub: SimHub, job: str, config: dict[str, Any], env: Mapping[str, str]) -> None:
        """Start the host; workers are forked by it as they are needed."""
        self._hub, self._job = hub, job
        path = hub.state / "sites.sock"
        self._listener = localsock.listen(path)
        threading.Thread(target=self._accept, name="workers", daemon=True).start()
        file = hub.state / "host.json"
        file.write_text(json.dumps({**config, "socket": str(path)}))
        argv = [sys.executable, "-m", "fl_runtime.simulator.host", str(file)]
        self._process = processes.start(argv, hub.state, env, hub.state / "host.log")

    def died(self) -> str | None:
        """Why nothing will come any more; None while the host lives."""
        if self._process is None or self._process.poll() is None or self._closing:
            return None
        assert self._hub is not None
        tail = (self._hub.state / "host.log").read_text(errors="replace").strip().splitlines()[-1:]
        return f"the sites' process ended with code {self._process.returncode}: {tail[0] if tail else ''}"

    def end(self, patience: float) -> None:
        """The job is over: scripts that wait learn it, and have `patience` seconds to end."""
        with self._lock:
            self._closing = True
            connected = [worker for worker in self._queue.workers.values() if worker.connection is not None]
            for worker in connected:
                self._tell(worker, {"op": "end"})
            until = time.monotonic() + patience
            while any(worker.connection is not None for worker in connected) and time.monotonic() < until:
                self._idle.wait(max(0.01, until - time.monotonic()))
            if self._host is not None:
                self._host.close()
        if self._process is not None:
            processes.end_group(self._process.pid, self._process, grace=0.5)
        if self._listener is not None:
            self._listener.close()

    # --- tasks

    def deliver(self, name: str, body: dict[str, Any]) -> None:
        """A message of the server to a site."""
        if "task" in body:
            with self._lock:
                self._queue.add(name, body["task"])
                self._pump()
        elif "task_cancel" in body:
            with self._lock:
                self._queue.cancel(name, body["task_cancel"].task)

    def _pump(self) -> None:
        """Give every worker with a free place its next task; under the lock."""
        if self._closing or self._host is None:
            return
        for worker, site in self._queue.due():
            if worker.connection is not None:
                self._hand_out(worker, site)
            elif not worker.asked:
                worker.asked = True
                self._host.send({"fork": worker.number})

    def _hand_out(self, worker: Worker, site: Site) -> None:
        hub, task = self._hub, site.current
        assert hub is not None
        assert task is not None
        payload, inline, file = task.payload, b"", None
        if task.HasField("payload") and payload.blob:
            inline = payload.inline if payload.length == len(payload.inline) else b""
            file = None if inline else str(hub.blobs.path(payload.blob))
        meta = json.loads(task.meta or b"{}")
        body = {
            "id": task.task,
            "attempt": task.attempt,
            "name": task.name,
            "meta": meta,
            "file": file,
            "blobs": {
                key: described(hub.blobs, bytes.fromhex(blob)) for key, blob in (meta.get("blobs") or {}).items()
            },
        }
        message = {
            "op": "task",
            "site": site.name,
            "task": body,
            "data": dict(self._data(site.name)),
            "log": str(hub.logs.path(self._job, site.name)),
        }
        self._tell(worker, message, inline)

    def _tell(self, worker: Worker, message: dict[str, Any], binary: bytes = b"") -> None:
        if worker.connection is None:
            return
        try:
            worker.connection.send(message, binary)
        except OSError:
            log.debug("worker %d is gone", worker.number)  # its reader acts on it

    # --- from the workers

    def _accept(self) -> None:
        while True:
            try:
                connection = localsock.accept(self._listener)
            except OSError:
                return
            if connection is not None:
                threading.Thread(target=self._serve, args=(connection,), name="worker", daemon=True).start()

    def _serve(self, connection: localsock.Connection) -> None:
        first = connection.receive()
        if first is None:
            return
        if first[0].get("op") == "host":
            with self._lock:
                self._host = connection
                self._pump()
            return
        worker = self._queue.workers[int(first[0]["number"])]
        with self._lock:
            worker.connection = connection
            for site in worker.sites:
                self._hand_out(worker, site)
        try:
            while (received := connection.receive()) is not None:
                self._handle(worker, connection, *received)
        except OSError:
            log.debug("worker %d is gone", worker.number)
        except Exception:
            if not self._closing:
                log.exception("a message of worker %d could not be handled", worker.number)
        self._gone(worker)

    def _handle(self, worker: Worker, connection: localsock.Connection, message: dict[str, Any], data: bytes) -> None:
        hub, op, site = self._hub, message.get("op"), self._queue.sites.get(str(message.get("site")))
        assert hub is not None
        if site is None:
            return
        if op == "spool":
            connection.send({"file": str(hub.blobs.new_spool_file(int(message["size"])))})
        elif op == "result":
            connection.send({"ok": True})
            self._result(site, message, data)
        elif op == "metric":
            hub.store.add_metrics(self._job, site.name, message["items"])
        elif op in ("waits", "left", "failed"):
            with self._lock:
                self._queue.done_with(worker, site)
                self._pump()
            if op != "waits":
                hub.jobs.site_out(self._job, site.name, str(op), str(message["why"]))
        else:
            connection.send({"error": f"a simulated site does not know {op!r}"})

    def _result(self, site: Site, message: dict[str, Any], data: bytes) -> None:
        hub = self._hub
        assert hub is not None
        site.crashes = 0
        payload = None
        if message.get("file") or message.get("tensors"):
            blobs = hub.blobs
            staged = blobs.stage_file(Path(message["file"])) if message.get("file") else blobs.stage_bytes(data)
            owner = f"job:{self._job}:task:{message['task']}"
            with hub.store.tx():
                blob = blobs.register(*staged, owner)
            payload = pb.Payload(blob=blob, length=staged[0].length, inline=staged[1] or b"")
        result = pb.TaskResult(
            job=self._job,
            task=message["task"],
            attempt=int(message["attempt"]),
            meta=json.dumps(message["meta"]).encode(),
            payload=payload,
        )
        hub.board.answers.take(site.name, result)
        self.answers += 1
        hub.changed()

    def _gone(self, worker: Worker) -> None:
        """A worker's connection has ended: at the end of all, or because the process died with a site's script."""
        with self._lock:
            worker.connection, worker.asked = None, False
            self._idle.notify_all()
            if self._closing:
                return
            failed = self._queue.lost(worker)
            self._pump()
        for site in failed:
            if self._hub is not None:
                why = f"its process died {site.crashes} times: out of memory, or a crash in native code"
                self._hub.jobs.site_out(self._job, site.name, "failed", why)
