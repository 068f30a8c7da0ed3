"""A job's process on a site: the tasks it gets, the answers it gives. One of them for each (job, rank)."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime.client.model import FLModel, from_wire, store, to_wire
from fl_runtime.client.wire import EPOCH, JOB, SITE, SOCKET, AgentWire, Frame, Wire
from fl_runtime.errors import FlError
from fl_runtime.models.tensors import encode
from fl_runtime.names import OWN_TASK

__all__ = ["EPOCH", "JOB", "SITE", "SOCKET", "Session", "Wire", "Work"]


@dataclass
class Work:
    """A task: its plain part, its model as a file (or bytes, when small), and models that go with it."""

    id: str
    attempt: int
    name: str
    meta: dict[str, Any]
    source: Path | bytes | None
    blobs: dict[str, Path | bytes] = field(default_factory=dict)


class Session:
    """What `flare.init()` makes: attached to one job on this site. Any thread may call it.

    Args:
        wire: the way to the agent; default: what the environment says.
        rank: of this process among the script's; default: RANK, else 0. Every rank gets each task, rank 0 answers.
        world: number of ranks; default: WORLD_SIZE, else 1.
    """

    def __init__(self, wire: Wire | None = None, rank: int | None = None, world: int | None = None) -> None:
        self._wire: Wire = wire if wire is not None else AgentWire.here()
        self._lock = threading.RLock()
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self._ended = False
        self._last: str | None = None  # id of the task that was answered last
        self._work: Work | None = None
        self._model: FLModel | None = None
        self._told = False  # running() has said that there is this task
        self._sent_torch = False
        self.info: dict[str, Any] = self._wire.attach(
            {
                "op": "attach",
                "job": "",
                "epoch": 0,
                "rank": self.rank,
                "world": int(os.environ.get("WORLD_SIZE", "1")) if world is None else world,
                "pid": os.getpid(),
            }
        )

    # --- tasks

    def running(self) -> bool:
        """Block until there is a task (True), or the job is over (False). Other ranks than 0 need neither receive nor
        answer: who has heard of the task here, or has its model, and asks again is through with it."""
        with self._lock:
            if self.rank != 0 and self._work is not None and (self._told or self._model is not None):
                self._done(self._work)
            self._told = self.wait()
            return self._told

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is a task (True), or the job is over or the time is up (False)."""
        with self._lock:
            while self._work is None and not self._ended:
                message = {"op": "next", "after": self._last, **({} if timeout is None else {"timeout": timeout})}
                reply, binary = self._request(message)
                task = reply.get("task")
                if task is None:
                    self._ended = not reply.get("timeout")
                    return False
                work = _work(task, binary)
                if work.name.startswith(OWN_TASK):
                    self._do_own(work)
                else:
                    self._work, self._model, self._told = work, None, False
            return self._work is not None

    def work(self) -> Work | None:
        """The task as it came; None when the job is over."""
        with self._lock:
            return self._work if self.wait() else None

    def receive(self, timeout: float | None = None) -> FLModel | None:
        """The task's model; the same object until it is answered. None when the job is over or the time is up."""
        with self._lock:
            if not self.wait(timeout):
                return None
            if self._model is None:
                assert self._work is not None
                self._model = from_wire(self._work.meta, self._work.source, self._framework())
            return self._model

    @property
    def has_task(self) -> bool:
        """Without waiting for one."""
        return self._work is not None

    @property
    def answered(self) -> str | None:
        """Id of the task that was answered last."""
        return self._last

    @property
    def task_name(self) -> str | None:
        with self._lock:
            return self._work.name if self.wait() and self._work is not None else None

    # --- answers

    def send(self, model: FLModel) -> None:
        """Answer the task. Returns when the agent has it on disk.

        Raises:
            RuntimeError: there is no task to answer.
        """
        if not isinstance(model, FLModel):
            raise TypeError(f"send() takes an FLModel, not {type(model).__name__}")
        with self._lock:
            if self._work is None:
                raise RuntimeError("send() without a task: call receive() first; each task is answered once")
            work = self._work
            if self.rank == 0:
                if model.current_round is None:
                    model.current_round = work.meta.get("current_round")
                meta, plan = to_wire(model)
                self._sent_torch = self._sent_torch or meta.get("framework") == "torch"
                self._deliver(work, meta, plan)
            self._done(work)

    def answer(self, work: Work, meta: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        """As `send`, for what is no FLModel: the plain part, and arrays by name."""
        with self._lock:
            if self.rank == 0:
                self._deliver(work, meta, encode(tensors) if tensors else None)
            self._done(work)

    def _deliver(self, work: Work, meta: Mapping[str, Any], plan: Any, file: Path | None = None) -> None:
        inline = b""
        if file is None:
            inline, file = store(plan, self.new_file)
        message = {
            "op": "result",
            "task": work.id,
            "attempt": work.attempt,
            "meta": dict(meta),
            "file": str(file) if file else None,
            "tensors": plan is not None,
        }
        self._request(message, inline)

    def _done(self, work: Work) -> None:
        self._last = work.id
        self._work = self._model = None

    def new_file(self, size: int) -> Path:
        """A file of about `size` bytes for a result; it may be a recycled one."""
        return Path(self._request({"op": "spool", "size": size})[0]["file"])

    def _do_own(self, work: Work) -> None:
        """A task of the runtime's own, such as the aggregation of a round: the script does not see it."""
        if self.rank == 0:
            from fl_runtime.workflow.nodes import perform

            meta, file = perform(work, self.new_file)
            self._deliver(work, meta, file and ..., file)
        self._last = work.id

    # --- the rest

    @contextlib.contextmanager
    def watch(self, work: Work, cancelled: Callable[[], None]) -> Iterator[None]:
        """Call back, from a thread, when the task is cancelled or the job ends while the body runs."""
        connection = self._wire.watch(work.id) if isinstance(self._wire, AgentWire) else None
        over = threading.Event()

        def listen() -> None:
            told = connection.receive() if connection is not None else None
            if told is not None and told[0].get("cancelled") and not over.is_set():
                cancelled()

        if connection is not None:
            threading.Thread(target=listen, name="watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()
            if connection is not None:
                connection.close()

    def log(self, items: list[Mapping[str, Any]]) -> None:
        """Metrics of this process, on their way at once; nobody waits for them."""
        self._wire.report(items)

    def close(self) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
            self._wire.close()

    def _framework(self) -> str:
        wanted = self.info.get("framework")
        if wanted:
            return str(wanted)
        return "torch" if self._sent_torch or "torch" in sys.modules else "numpy"

    def _request(self, message: dict[str, Any], binary: bytes = b"") -> Frame:
        answer = self._wire.request(message, binary)
        if "error" in answer[0]:
            raise FlError("The agent refuses", why=str(answer[0]["error"]))
        return answer


def _work(task: Mapping[str, Any], binary: bytes) -> Work:
    blobs = {
        key: Path(entry["file"]) if entry.get("file") else base64.b64decode(entry["data"])
        for key, entry in (task.get("blobs") or {}).items()
    }
    source = Path(task["file"]) if task.get("file") else (binary or None)
    return Work(task["id"], task["attempt"], task["name"], task["meta"], source, blobs)
