"""The script's side of the local socket: one connection to the agent, taken up again when the agent comes back."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fl_runtime import localsock
from fl_runtime.client.model import FLModel, from_wire, store, to_wire
from fl_runtime.errors import FlError
from fl_runtime.names import ADOPT_S

SOCKET = "FEDSPAN_CLIENT_SOCKET"
JOB = "FEDSPAN_JOB"
EPOCH = "FEDSPAN_EPOCH"


class Wire(Protocol):
    """The way to the agent where it is not a socket: a simulated site's, inside its own process."""

    def attach(self, hello: dict[str, Any]) -> dict[str, Any]: ...
    def request(self, message: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]: ...
    def post(self, message: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Session:
    """What `flare.init()` makes: attached to one job on this site."""

    def __init__(self, wire: Wire | None = None) -> None:
        path = os.environ.get(SOCKET)
        if not path and wire is None:
            raise FlError(
                "This script does not run inside a federated job",
                why=f"{SOCKET} is not set",
                next_step="submit it: fedspan job submit FOLDER",
            )
        self._path = Path(path or "")
        self._wire = wire
        self._lock = threading.RLock()
        self._connection: localsock.Connection | None = None
        self.rank = int(os.environ.get("RANK", "0"))
        self.info: dict[str, Any] = {}
        self._ended = False
        self._last: str | None = None  # id of the task that was answered last
        self._task: dict[str, Any] | None = None
        self._model: FLModel | None = None
        self._content: Path | bytes | None = None
        self._sent_torch = False
        with self._lock:
            self._attach()

    # --- tasks

    def wait(self) -> bool:
        """Block until there is a task (True) or the job is over (False)."""
        with self._lock:
            if self._task is not None:
                return True
            if self._ended:
                return False
            reply, binary = self._request({"op": "next", "after": self._last})
            task = reply.get("task")
            if task is None:
                self._ended = True
                return False
            self._task = task
            self._content = Path(task["file"]) if task.get("file") else (binary or None)
            self._model = None
            return True

    def receive(self) -> FLModel | None:
        """The task's model; the same object until it is answered. None when the job is over."""
        with self._lock:
            if not self.wait():
                return None
            if self._model is None:
                assert self._task is not None
                self._model = from_wire(self._task["meta"], self._content, self._framework())
            return self._model

    def send(self, model: FLModel) -> None:
        """Answer the task. Returns when the agent has it on disk.

        Raises:
            RuntimeError: there is no task to answer.
        """
        if not isinstance(model, FLModel):
            raise TypeError(f"send() takes an FLModel, not {type(model).__name__}")
        with self._lock:
            if self._task is None:
                raise RuntimeError("send() without a task: call receive() first; each task is answered once")
            task = self._task
            if self.rank == 0:
                if model.current_round is None:
                    model.current_round = task["meta"].get("current_round")
                meta, plan = to_wire(model)
                self._sent_torch = self._sent_torch or meta.get("framework") == "torch"
                inline, file = store(plan, self._new_file)
                message = {
                    "op": "result",
                    "task": task["id"],
                    "attempt": task["attempt"],
                    "meta": meta,
                    "file": str(file) if file else None,
                    "tensors": plan is not None,
                }
                self._request(message, inline)
            self._last = task["id"]
            self._task = self._model = self._content = None

    def _new_file(self, size: int) -> Path:
        return Path(self._request({"op": "spool", "size": size})[0]["file"])

    @property
    def task_name(self) -> str | None:
        with self._lock:
            return str(self._task["name"]) if self.wait() and self._task is not None else None

    def log(self, items: list[Mapping[str, Any]]) -> None:
        """Metrics of this process, on their way at once; nobody waits for them."""
        with self._lock:
            self._post({"op": "metric", "items": items})

    def close(self) -> None:
        with self._lock:
            if self._wire is not None:
                self._wire.close()
            elif self._connection is not None:
                self._post({"op": "bye"})
                self._connection.close()
                self._connection = None
            self._ended = True

    def _framework(self) -> str:
        wanted = self.info.get("framework")
        if wanted:
            return str(wanted)
        return "torch" if self._sent_torch or "torch" in sys.modules else "numpy"

    # --- the connection

    def _attach(self) -> None:
        hello = {
            "op": "attach",
            "job": os.environ.get(JOB, ""),
            "epoch": int(os.environ.get(EPOCH, "0")),
            "rank": self.rank,
            "world": int(os.environ.get("WORLD_SIZE", "1")),
            "pid": os.getpid(),
        }
        if self._wire is not None:
            self.info = self._wire.attach(hello)
            return
        connection = localsock.connect(self._path)
        connection.send(hello)
        answer = connection.receive()
        if answer is None or "error" in answer[0]:
            connection.close()
            if answer is None:
                raise ConnectionError("the agent closed the connection")
            raise FlError("The agent refuses this process", why=str(answer[0]["error"]))
        self.info = answer[0]
        self._connection = connection

    def _request(self, message: dict[str, Any], binary: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Ask and wait. Every request may be repeated, so a lost agent costs no more than the time it is away."""
        if self._wire is not None:
            return _answered(self._wire.request(message, binary))
        until: float | None = None
        while True:
            try:
                if self._connection is None:
                    self._attach()
                assert self._connection is not None
                self._connection.send(message, binary)
                answer = self._connection.receive()
            except OSError:
                answer = None
            if answer is not None:
                return _answered(answer)
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            now = time.monotonic()
            until = now + ADOPT_S if until is None else until
            if now > until:
                sys.stderr.write(f"the agent did not come back within {ADOPT_S:.0f} s; this process ends\n")
                raise SystemExit(75)
            time.sleep(0.2)

    def _post(self, message: dict[str, Any]) -> None:
        if self._wire is not None:
            self._wire.post(message)
            return
        if self._connection is None:
            return
        try:
            self._connection.send(message)
        except OSError:
            self._connection.close()
            self._connection = None


def _answered(answer: tuple[dict[str, Any], bytes]) -> tuple[dict[str, Any], bytes]:
    if "error" in answer[0]:
        raise FlError("The agent refuses", why=str(answer[0]["error"]))
    return answer
