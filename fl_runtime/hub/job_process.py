"""The process of a job on the server: started, watched, started again from the last finished round."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fl_runtime import processes
from fl_runtime.client.session import EPOCH, JOB, SOCKET
from fl_runtime.hub.state import FAILED, Job
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

    def is_over(self) -> bool:
        return self.over

    def progressed(self) -> None:
        self.crashes = 0


class JobProcesses:
    """Launches of all running jobs."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._closing = False

    def start(self, running: Running) -> None:
        """Launch it; under `running.lock`."""
        job = running.job
        env = processes.job_environment(
            {SOCKET: str(self._hub.socket_path), JOB: job.id, EPOCH: str(running.epoch), "OMP_NUM_THREADS": "1"}
        )
        argv = [sys.executable, "-m", "fl_runtime.workflow.process"]
        self._hub.store.set_process(job.id, running.epoch, None)
        child = processes.start(argv, running.folder, env, running.folder / "log")
        self._hub.server_logs.follow(job.id, running.folder / "log")
        running.child = child
        found = processes.identify(child.pid)
        if found is not None:
            self._hub.store.set_process(job.id, running.epoch, (found.pid, found.started, found.boot))
        threading.Thread(target=self._supervise, args=(running, child), name=f"job-{job.id}", daemon=True).start()

    def _supervise(self, running: Running, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        with running.lock:
            if running.is_over() or self._closing or running.child is not child:
                return
            running.crashes += 1
            crashes = running.crashes
        job = running.job.id
        self._hub.board.forget(job)
        if crashes > MAX_CRASHES:
            tail = "\n".join(last_lines(running.folder / "log"))
            self._hub.jobs.end(
                job, FAILED, f"its process on the server ended {crashes} times (code {code}): {tail[-300:]}"
            )
            return
        log.warning("%s: its process ended with code %s; started again from the last finished round", job, code)
        self._hub.store.add_event(job, {"event": "restarted", "code": code})
        time.sleep(min(2.0, 0.1 * 2**crashes))
        with running.lock:
            if running.is_over() or self._closing:
                return
            running.epoch += 1
            self.start(running)

    def end(self, running: Running, patience: float) -> None:
        """End the process, given `patience` seconds to end by itself."""
        child = running.child
        if child is None:
            return
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
        processes.end_group(child.pid, child)

    def close(self, running: list[Running]) -> None:
        """The hub stops: job processes end with it."""
        self._closing = True
        for entry in running:
            with entry.lock:
                entry.over = True
                entry.ready.set()
            if entry.child is not None:
                processes.end_group(entry.child.pid, entry.child, grace=1.0)
