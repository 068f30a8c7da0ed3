"""The simulated server: the real store, blobs, board, desk and job process; no network, no kits, no invitations."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime.blobs import BlobStore
from fl_runtime.hub.attaching import serve_local
from fl_runtime.hub.board import Board
from fl_runtime.hub.changes import Changes
from fl_runtime.hub.desk import Desk
from fl_runtime.hub.job_process import JobProcesses, Running
from fl_runtime.hub.job_views import JobViews
from fl_runtime.hub.logs import LogBook, ServerLogs
from fl_runtime.hub.state import FINAL, RUNNING, Job
from fl_runtime.hub.store import open_store
from fl_runtime.hub.wires import Wires
from fl_runtime.job.spec import JobSpec

log = logging.getLogger("fedspan.simulator")


class SimSites:
    """In the place of the participants' streams: all sites are here, always; messages go to `deliver`."""

    def __init__(self, names: list[str], deliver: Callable[[str, dict[str, Any]], None]) -> None:
        self._names = sorted(names)
        self._deliver = deliver

    def send(self, name: str, **body: Any) -> bool:
        self._deliver(name, body)
        return True

    def lost_for(self, name: str) -> float | None:
        return None

    def connected(self) -> list[str]:
        return list(self._names)

    def get(self, name: str) -> None:
        return None


class SimJobs(JobViews):
    """In the place of the scheduler: one job, that runs."""

    def __init__(self, hub: SimHub) -> None:
        super().__init__(hub)  # type: ignore[arg-type]  # SimHub has what it uses
        self._running: Running | None = None
        self._processes = JobProcesses(hub)  # type: ignore[arg-type]
        self._lock = threading.Lock()

    def start(self, job: Job, folder: Path, sites: list[str]) -> None:
        running = Running(job, folder, 1)
        with self._hub.store.tx():
            self._hub.store.set_job(job.id, RUNNING)
            for site in sites:
                self._hub.store.set_site(job.id, site, "running")
        running.ready.set()
        self._running = running
        with running.lock:
            self._processes.start(running)

    def running(self, job: str) -> Running | None:
        return self._running

    def settled(self, job: Job) -> bool:
        return True

    def site_out(self, job: str, site: str, state: str, why: str) -> None:
        """The site's script has left or failed for good."""
        with self._hub.store.tx():
            self._hub.store.set_site(job, site, state, why)
            self._hub.store.add_event(job, {"event": state, "site": site, "why": why})
        self._hub.board.site_out(job, site, why)
        self._hub.changed()

    def end(self, job_id: str, state: str, cause: str) -> bool:
        with self._lock:
            job = self._hub.store.job(job_id)
            if job is None or job.state in FINAL:
                return False
            with self._hub.store.tx():
                self._hub.store.set_job(job_id, state, cause)
                self._hub.store.add_event(job_id, {"event": "ended", "state": state, "cause": cause})
            if self._running is not None:
                self._running.over = True
        self._hub.board.forget(job_id)
        self._hub.changed()
        return True

    def close(self) -> None:
        running = self._running
        if running is not None:
            running.over = True
            self._processes.end(running, patience=1.0)
            self._hub.server_logs.ended(running.job.id)


class SimHub(Changes):
    """What `Hub` is to its parts, in a folder that goes with the simulation."""

    def __init__(self, folder: Path, sites: list[str], deliver: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder
        self.socket_path = folder / "local.sock"
        self.store = open_store(folder)
        self.blobs = BlobStore(folder, self.store.db)
        self.logs = LogBook(folder / "logs")
        self.server_logs = ServerLogs(self.logs)
        self.sessions = SimSites(sites, deliver)
        self.jobs = SimJobs(self)
        self.board = Board(self.store, self.blobs, self.sessions)  # type: ignore[arg-type]
        self.wires = Wires(self)  # type: ignore[arg-type]  # no job here has codecs: they are refused before
        self.board.answers.noted = self.wires.noted
        self.desk = Desk(self)  # type: ignore[arg-type]
        self._local = serve_local(self, self.socket_path)  # type: ignore[arg-type]
        self._stopping = threading.Event()
        threading.Thread(target=self._tick, name="ticker", daemon=True).start()

    def start(self, job_id: str, spec: JobSpec, bundle: Path, sites: list[str]) -> Job:
        """The job runs: its process on the server begins."""
        job = Job(
            id=job_id,
            name=spec.name,
            spec=spec.document(),
            submitter="simulation",
            envelope=b"",
            signature=b"",
            certificate=b"",
            bundle=bytes(32),
            bundle_length=0,
            state=RUNNING,
            submitted=time.time(),
        )
        self.store.add_job(job)
        self.jobs.start(job, bundle.parent, sites)
        return job

    def status(self) -> dict[str, Any]:
        return {"role": "simulation"}

    def _tick(self) -> None:
        while not self._stopping.wait(0.5):
            try:
                self.board.tick()
            except Exception:
                if not self._stopping.is_set():
                    log.exception("housekeeping failed")

    def close(self) -> None:
        self._stopping.set()
        self.jobs.close()
        self.server_logs.close()
        self._local.close()
        self.store.close()
