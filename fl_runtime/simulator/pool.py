"""Simulated sites as the server sees them: tasks go to the worker that holds the site, results come back.

A site belongs to the worker that ran its first task; until then the worker that is free takes it. Each worker has at
most two tasks: one that runs and one that is there when it ends. Isolated, each site is a process, and as many run as
there are places.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime import localsock, processes
from fl_runtime.blobs.described import described
from fl_runtime.errors import JobSpecError
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.simulator.host import MAX_RESTARTS
from fl_runtime.simulator.hub import SimHub

log = logging.getLogger("fedspan.simulator")
START_S = 60.0
_AHEAD = 2


@dataclass(eq=False)
class _Site:
    name: str
    worker: int | None = None
    waiting: deque[pb.Task] = field(default_factory=deque)
    current: pb.Task | None = None
    crashes: int = 0


@dataclass(eq=False)
class _Worker:
    number: int
    connection: localsock.Connection | None = None
    asked: bool = False
    sites: list[_Site] = field(default_factory=list)  # with a task there, in order


class Pool:
    """Start with `start()`; tasks come in by `deliver`."""

    def __init__(
        self,
        names: Sequence[str],
        workers: int,
        isolate: bool,
        data: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._sites = {name: _Site(name) for name in names}
        self._workers = {n: _Worker(n) for n in range(len(names) if isolate else workers)}
        self._places = workers
        self._isolate = isolate
        if isolate:
            for number, site in enumerate(self._sites.values()):
                site.worker = number
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
            connected = [worker for worker in self._workers.values() if worker.connection is not None]
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
                site = self._sites[name]
                task = body["task"]
                if (site.current is None or site.current.task != task.task) and all(
                    waiting.task != task.task for waiting in site.waiting
                ):
                    site.waiting.append(task)
                self._pump()
        elif "task_cancel" in body:
            with self._lock:
                site = self._sites[name]
                site.waiting = deque(task for task in site.waiting if task.task != body["task_cancel"].task)

    def _pump(self) -> None:
        """Give every worker with a free place its next task; under the lock."""
        if self._closing or self._host is None:
            return
        busy = sum(len(worker.sites) for worker in self._workers.values())
        for site in self._sites.values():
            if not site.waiting or site.current is not None:
                continue
            if self._isolate:
                if busy >= self._places:
                    return
                assert site.worker is not None
                worker = self._workers[site.worker]
            elif site.worker is not None:
                worker = self._workers[site.worker]
                if len(worker.sites) >= _AHEAD:
                    continue
            else:
                worker = min(self._workers.values(), key=lambda entry: len(entry.sites))
                if len(worker.sites) >= _AHEAD:
                    continue
                site.worker = worker.number
            busy += 1
            site.current = site.waiting.popleft()
            worker.sites.append(site)
            if worker.connection is not None:
                self._hand_out(worker, site)
            elif not worker.asked:
                worker.asked = True
                self._host.send({"fork": worker.number})

    def _hand_out(self, worker: _Worker, site: _Site) -> None:
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

    def _tell(self, worker: _Worker, message: dict[str, Any], binary: bytes = b"") -> None:
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
        worker = self._workers[int(first[0]["number"])]
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

    def _handle(self, worker: _Worker, connection: localsock.Connection, message: dict[str, Any], data: bytes) -> None:
        hub, op, site = self._hub, message.get("op"), self._sites.get(str(message.get("site")))
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
                self._done_with(worker, site)
                self._pump()
            if op != "waits":
                hub.jobs.site_out(self._job, site.name, str(op), str(message["why"]))
        else:
            connection.send({"error": f"a simulated site does not know {op!r}"})

    def _done_with(self, worker: _Worker, site: _Site) -> None:
        site.current = None
        if site in worker.sites:
            worker.sites.remove(site)

    def _result(self, site: _Site, message: dict[str, Any], data: bytes) -> None:
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

    def _gone(self, worker: _Worker) -> None:
        """A worker's connection has ended: at the end of all, or because the process died with a site's script."""
        with self._lock:
            worker.connection, worker.asked = None, False
            self._idle.notify_all()
            if self._closing:
                return
            hit, worker.sites = worker.sites, []
            failed: list[_Site] = []
            for number, site in enumerate(hit):
                if site.current is not None:
                    site.waiting.appendleft(site.current)
                site.current = None
                if number == 0:  # the one that ran
                    site.crashes += 1
                    if site.crashes > MAX_RESTARTS:
                        site.waiting.clear()
                        failed.append(site)
            self._pump()
        for site in failed:
            if self._hub is not None:
                why = f"its process died {site.crashes} times: out of memory, or a crash in native code"
                self._hub.jobs.site_out(self._job, site.name, "failed", why)


def preloads(bundle: Path, script: str) -> list[str]:
    """Modules worth importing once for all: what the script, and modules of the job that it imports, import on top."""
    import ast

    heavy = {"torch", "torchvision", "numpy", "scipy", "sklearn", "pandas", "lightning", "transformers", "PIL"}
    found: set[str] = set()
    seen: set[Path] = set()
    todo = [bundle / script] if script else []
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        source = path.read_bytes()
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise JobSpecError(
                f"{path.name} is not Python", why=str(error), next_step=f"python -m py_compile {path}"
            ) from None
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] in heavy:
                    found.add(name)
                if name.partition(".")[0] == "torch" and b"optim" in source:
                    found.add("torch._dynamo")  # 1.4 s: torch imports it when the first optimizer is made
                todo += [
                    bundle / Path(*name.split(".")).with_suffix(".py"),
                    bundle / name.split(".")[0] / "__init__.py",
                ]
    return sorted(found)
