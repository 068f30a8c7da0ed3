"""The process of a job on the server: started, watched, started again from the last finished round."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fl_runtime import localsock, processes
from fl_runtime.agent.place import SWEEP_S, Place
from fl_runtime.client.session import EPOCH, JOB, SOCKET
from fl_runtime.errors import FlError, StorageError
from fl_runtime.hub import own_code
from fl_runtime.hub.state import FAILED, Job
from fl_runtime.names import STOP_S
from fl_runtime.patience import patiently
from fl_runtime.tail import last_lines

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")

MAX_CRASHES = 5  # of a job's process without a finished round between


@dataclass(eq=False)
class Running:
    """A running job's process here."""

    job: Job
    folder: Path
    epoch: int
    ready: threading.Event = field(default_factory=threading.Event)  # enough sites have accepted
    over: bool = False
    crashes: int = 0
    child: subprocess.Popen[bytes] | None = None
    begun: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)  # around launches and the end
    place: Place | None = None  # where it runs code of its own, kept apart
    socket: localsock.Server | None = None  # of such a process

    def is_over(self) -> bool:
        return self.over

    def progressed(self) -> None:
        self.crashes = 0

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to the present launch."""
        with self.lock:
            return self.child is not None and processes.descends(pid, self.child.pid)

    def end_process(self, grace: float = STOP_S) -> None:
        """End it with all that it has started."""
        if self.child is not None:
            processes.end_group(self.child.pid, self.child, grace if self.place is None else STOP_S + SWEEP_S)
        if self.place is not None:
            self.place.sweep()


class JobProcesses:
    """Launches of all running jobs.

    Args:
        serve: makes the local socket for a process that may not come to the hub's own.
    """

    def __init__(self, hub: Hub, serve: Callable[[Running], localsock.Server] | None = None) -> None:
        self._hub = hub
        self._serve = serve
        self._closing = False

    def start(self, running: Running) -> None:
        """Launch it; under `running.lock`."""
        job, place = running.job, running.place
        if place is not None and running.socket is None and self._serve is not None:
            place.prepare()
            running.socket = self._serve(running)
        socket = self._hub.socket_path if place is None else place.socket
        env = processes.job_environment(
            {SOCKET: str(socket), JOB: job.id, EPOCH: str(running.epoch), "OMP_NUM_THREADS": "1"}
        )
        argv = [sys.executable, "-m", "fl_runtime.workflow.process"]
        self._hub.store.set_process(job.id, running.epoch, None)
        if place is None:
            child = processes.start(argv, running.folder, env, running.folder / "log")
        else:
            child = place.launch(argv, env, running.epoch, (), 0, lambda pid: self._note(running, pid))
        running.child = child
        if place is None:
            with contextlib.suppress(StorageError):  # it ends by itself with the hub, and its epoch with it
                self._note(running, child.pid)
        self._hub.server_logs.follow(job.id, running.folder / "log")
        threading.Thread(target=self._supervise, args=(running, child), name=f"job-{job.id}", daemon=True).start()

    def _note(self, running: Running, pid: int) -> None:
        """Make a process durable, so that the next life of the server finds it."""
        found = processes.identify(pid)
        if found is not None:
            process = (found.pid, found.started, found.boot)
            self._hub.store.set_process(running.job.id, running.epoch, process)

    def _supervise(self, running: Running, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        if running.place is not None:
            running.place.sweep()
        with running.lock:
            if running.is_over() or self._closing or running.child is not child:
                return
            if not self._hub.blobs.space.exhausted():  # else even its output could fail
                running.crashes += 1
            crashes = running.crashes
            running.epoch += 1  # what is left of that launch is refused from now on
        job = running.job.id
        self._hub.board.forget(job)
        if crashes > MAX_CRASHES:
            tail = "\n".join(last_lines(running.folder / "log"))
            self._fail(job, f"its process on the server ended {crashes} times (code {code}): {tail[-300:]}")
            return
        log.warning("%s: its process ended with code %s; started again from the last finished round", job, code)
        event = {"event": "restarted", "code": code}
        try:
            patiently(lambda: self._hub.store.add_event(job, event), lambda: not self._closing, job)
            time.sleep(min(2.0, 0.1 * 2**crashes))
            patiently(lambda: self._start_again(running), lambda: not self._closing, job)
        except (OSError, FlError) as error:
            self._fail(job, f"it can't be started again: {error}")

    def _fail(self, job: str, cause: str) -> None:
        """End a job that can't go on; the next life of the server decides anew where this one stops."""
        with contextlib.suppress(StorageError):
            patiently(lambda: self._closing or self._hub.jobs.end(job, FAILED, cause), lambda: not self._closing, job)

    def _start_again(self, running: Running) -> None:
        with running.lock:
            if running.is_over() or self._closing:
                return
            self.start(running)

    def end(self, running: Running, patience: float) -> None:
        """End the process, given `patience` seconds to end by itself."""
        if running.child is not None and patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.child.wait(patience)
        running.end_process()
        if running.socket is not None:
            running.socket.close()
        if running.place is not None:
            own_code.leave(running.place)

    def close(self, running: list[Running]) -> None:
        """The hub stops: job processes end with it."""
        self._closing = True
        for entry in running:
            with entry.lock:
                entry.over = True
                entry.ready.set()
            entry.end_process(grace=1.0)
            if entry.socket is not None:
                entry.socket.close()
