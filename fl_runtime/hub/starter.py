"""Queued jobs on their way to the sites: the scheduler's decisions carried out, what the sites said remembered."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from fl_runtime.hub.scheduler import LEASE_S, Queued, Scheduler
from fl_runtime.hub.state import QUEUED, RUNNING, Job
from fl_runtime.job.resources import parse_need
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.hub.jobs import Jobs
    from fl_runtime.hub.main import Hub

_LATE_S = 5.0  # between questions to a site that could join a running job and had no room
_SINCE_MAJOR = 2  # of the protocol; an older site can't set anything aside and takes what comes


class Starter:
    """Every method may be called from any thread."""

    def __init__(self, hub: Hub, jobs: Jobs) -> None:
        self._hub, self._jobs = hub, jobs
        self._scheduler = Scheduler()
        self._figures: dict[str, dict[str, Any]] = {}
        self._late: dict[tuple[str, str], float] = {}  # (job, site): when it was asked to join
        self._lock = threading.RLock()

    def schedule(self, hurry: bool = False) -> None:
        """Ask, start or release, as it is time to."""
        with self._lock:
            if hurry:
                self._scheduler.hurry()
            jobs = {job.id: job for job in self._hub.store.jobs([QUEUED])}
            for _ in range(100):
                steps = self._scheduler.plan([self._queued(job) for job in jobs.values()], time.monotonic())
                for step in steps:
                    job = jobs[step.job]
                    if step.verb == "ask":
                        for site in step.sites:
                            self._ask(job, site, step.number)
                        continue
                    del jobs[step.job]
                    if step.verb == "start" and self._jobs.begin(job, list(step.sites)):
                        continue
                    for site in step.sites:
                        self._hub.sessions.send(site, release=pb.Release(job=job.id))
                    if step.verb == "fail":
                        self._jobs.end(job.id, "FAILED", f"its sites are too small for it. {step.why}")
                if not any(step.verb == "ask" for step in steps):
                    break  # sites that can't set aside have answered at once: there may be more to do

    def _queued(self, job: Job) -> Queued:
        named = job.spec["sites"] != "all"
        least = job.spec["workflow"].get("min_sites")
        minimum = max(1, int(least)) if least is not None else len(job.spec["sites"]) if named else None
        wanted = tuple(self._jobs.wanted(job))
        return Queued(job.id, int(job.spec.get("priority") or 0), job.submitted, wanted, minimum, named)

    def _ask(self, job: Job, site: str, number: int) -> None:
        session = self._hub.sessions.get(site)
        if session is None:
            return
        if session.major < _SINCE_MAJOR:
            self._scheduler.answered(job.id, site, number, True, "", False)
            return
        need = json.dumps(parse_need(job.spec.get("resources") or {}).document()).encode()
        session.send(reserve=pb.Reserve(job=job.id, need=need, lease_ms=int(LEASE_S * 1000), attempt=number))

    def answered(self, site: str, message: pb.Reserved) -> None:
        """A site has set aside what a job needs, or could not."""
        with self._lock:
            if message.figures:
                self.said(site, message.figures)
            late = self._late.pop((message.job, site), None)
            if late is not None and message.attempt == 0:
                job = self._hub.store.job(message.job)
                if message.granted and job is not None and job.state == RUNNING:
                    self._jobs.join(job, site)
                elif not message.granted:
                    self._late[(message.job, site)] = time.monotonic()
                return
            taken = self._scheduler.answered(
                message.job, site, message.attempt, message.granted, message.why, message.never
            )
        if not taken and message.granted:
            self._hub.sessions.send(site, release=pb.Release(job=message.job))
        self.schedule()

    # --- sites that come to a running job

    def invite_late(self, job: Job, site: str) -> None:
        """A site that the job wants and that is not part of it: asked now, and again while it has no room."""
        session = self._hub.sessions.get(site)
        if session is None:
            return
        if session.major < _SINCE_MAJOR:
            self._jobs.join(job, site)
            return
        with self._lock:
            self._late[(job.id, site)] = time.monotonic()
        self._ask(job, site, 0)

    def again(self, job: str, site: str) -> None:
        """A site that was to start a job has no room any more."""
        with self._lock:
            self._late[(job, site)] = time.monotonic()

    def tick(self) -> None:
        """Every half second."""
        self.schedule()
        now = time.monotonic()
        with self._lock:
            due = [key for key, at in self._late.items() if now - at > _LATE_S]
        for job_id, site in due:
            job = self._hub.store.job(job_id)
            state = self._jobs.taking_part(job_id).get(site) if job is not None and job.state == RUNNING else "over"
            if job is not None and state is None:
                self.invite_late(job, site)
                continue
            with self._lock:
                self._late.pop((job_id, site), None)
            if job is not None and state == "invited":
                self._jobs.invite(job, site)

    # --- for people

    def waits_for(self, job: str) -> str:
        with self._lock:
            return self._scheduler.waits_for(job)

    def said(self, site: str, figures: bytes) -> None:
        """What a site has, and what of it is free.

        Raises:
            ValueError: that is not what came.
        """
        said = json.loads(figures)
        if not isinstance(said, dict):
            raise ValueError("figures must be a map")
        with self._lock:
            self._figures[site] = said

    def figures(self, site: str) -> dict[str, Any]:
        """What the site said last about what it has."""
        with self._lock:
            return dict(self._figures.get(site, {}))
