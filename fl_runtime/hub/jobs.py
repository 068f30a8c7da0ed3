"""Jobs on the hub: from submission to a final state, with the process that runs the workflow."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from typing import TYPE_CHECKING

from fl_runtime import processes
from fl_runtime.agent.place import SWEEP_S, clear
from fl_runtime.errors import FlError, StorageError
from fl_runtime.hub import disk
from fl_runtime.hub.attaching import serve_own_code
from fl_runtime.hub.board import payload
from fl_runtime.hub.job_process import JobProcesses, Running
from fl_runtime.hub.job_views import IN, JobViews
from fl_runtime.hub.own_code import place_of
from fl_runtime.hub.starter import Starter
from fl_runtime.hub.state import FAILED, FINAL, RECEIVING, RUNNING, Job
from fl_runtime.job.bundle import unpack
from fl_runtime.names import STOP_S, SUBMIT_WITHIN_S
from fl_runtime.patience import again, is_full
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")

START_GRACE_S = 2.0  # for stragglers to accept, once the minimum has


class Jobs(JobViews):
    """Scheduler, invitations, processes. The lock guards the table of running jobs only."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._running: dict[str, Running] = {}
        self._lock = threading.RLock()
        self._closing = False
        self._processes = JobProcesses(hub, lambda running: serve_own_code(hub, running))
        self.starter = Starter(hub, self)

    # --- views

    def running(self, job: str) -> Running | None:
        with self._lock:
            return self._running.get(job)

    # --- starting

    def recover(self) -> None:
        """After a restart of the hub: end what is left of the old processes, go on with the running jobs."""
        for job in self._hub.store.jobs([RUNNING]):
            if job.process is not None:
                old = processes.ProcessId(*job.process)
                if old.alive():
                    # below a keeper it is the keeper that ends the rest, and needs its time
                    processes.end_group(old.pid, grace=STOP_S + SWEEP_S if job.spec["workflow"].get("path") else 1.0)
            log.info("%s: goes on after a restart of the server", job.id)
            self._go_on(job, fresh=False)
        self.schedule()

    def _go_on(self, job: Job, fresh: bool) -> None:
        """Launch a running job's process; a full disk is waited for, whatever else prevents it ends the job."""
        try:
            try:
                self._launch(job, fresh)
            except (OSError, FlError) as error:
                if is_full(error):
                    raise
                self.end(job.id, FAILED, f"it can't be started{'' if fresh else ' again'}: {error}")
        except (OSError, StorageError) as error:
            if not self._closing:
                log.error("%s waits: %s", job.id, error)
                again(lambda: self._go_on(job, fresh))

    def schedule(self, hurry: bool = False) -> None:
        """Start what can start; `hurry`: something became free, so those that pause are asked for again too."""
        if not self._closing:
            self.starter.schedule(hurry)

    def begin(self, job: Job, sites: list[str]) -> bool:
        """These sites have set aside what the job needs: start it; False when they need not any more."""
        with self._lock:
            if self._closing or job.id in self._running:
                return True
            try:
                blobs = self._hub.blobs
                disk.check(job.spec["workflow"], len(sites), lambda: blobs.read(job.bundle), blobs.space)
                with self._hub.store.tx():
                    if not self._hub.store.set_job(job.id, RUNNING):  # it ended a moment ago
                        return False
                    for site in sites:
                        self._hub.store.set_site(job.id, site, "invited")
            except (OSError, FlError) as error:
                self.end(job.id, FAILED, f"it can't be started: {error}")
                return False
            self._go_on(job, fresh=True)
            if job.id not in self._running:
                return False
        log.info("%s: starts with %s", job.id, ", ".join(sites))
        for site in sites:
            self.invite(job, site)
        self._hub.changed()
        return True

    def join(self, job: Job, site: str) -> None:
        """A site that came later has room for it."""
        if self.running(job.id) is not None and site not in self._hub.store.sites(job.id):
            self._hub.store.set_site(job.id, site, "invited")
            self.invite(job, site)

    def _launch(self, job: Job, fresh: bool) -> None:
        folder = self._hub.state / "jobs" / job.id
        with self._lock:
            now = self._hub.store.job(job.id)
            if self._closing or now is None or now.state in FINAL:  # it waited for room, and is over meanwhile
                return
            running = self._running.get(job.id)
            if running is None:  # known from now on, also while its files wait for room: sites answer
                running = Running(job, folder, 0, place=place_of(self._hub, job, folder))
                if running.place is not None:
                    running.place.sweep()  # of an earlier life of the server
                self._running[job.id] = running
            running.epoch = now.epoch + 1
            if fresh and folder.exists():
                clear(folder)
            if not (folder / "bundle").exists():
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.rmtree(folder / "unpacking", ignore_errors=True)  # of an earlier life, killed meanwhile
                unpack(self._hub.blobs.read(job.bundle), folder / "unpacking")
                (folder / "unpacking").rename(folder / "bundle")
        with running.lock:
            if not running.over:
                self._processes.start(running)
        if not fresh:
            self._check_ready(running)

    # --- sites

    def invite(self, job: Job, site: str) -> None:
        if not self._hub.sessions.get(site):
            return
        self._hub.sessions.send(
            site,
            job_start=pb.JobStart(
                job=job.id,
                envelope=pb.Envelope(document=job.envelope, signature=job.signature, certificate=job.certificate),
                bundle=payload(self._hub.blobs, job.bundle),
                log_have=self._hub.logs.have(job.id, site),
                metric_have=self._hub.reported.metrics_at(job.id, site),
            ),
        )

    def connected(self, site: str) -> None:
        """A site has come (back): running jobs that want it invite it and push what it has not answered."""
        for job in self._hub.store.jobs([RUNNING]):
            sites = job.spec["sites"]
            if sites != "all" and site not in sites:
                continue
            state = self.taking_part(job.id).get(site)
            if state in ("refused", "left", "failed"):
                continue
            if state is None:
                self.starter.invite_late(job, site)
                continue
            self.invite(job, site)
            if state in IN:
                self._hub.board.push_open(job.id, site)
        self.schedule(hurry=True)

    def answer(self, site: str, answer: pb.JobAnswer) -> None:
        """A site accepts a job, or refuses it with a reason."""
        job = self._hub.store.job(answer.job)
        running = self.running(answer.job)
        known = self.taking_part(answer.job)
        if job is None or running is None or site not in known:
            self._hub.sessions.send(
                site, job_stop=pb.JobStop(job=answer.job, state=job.state if job else "", why="over")
            )
            return
        if known[site] in ("left", "failed"):
            return
        if answer.busy:  # its lease was over; it is asked again
            log.info("%s: %s has no room now: %s", job.id, site, answer.why)
            self.starter.again(job.id, site)
            return
        if not answer.accepted and known[site] in IN:  # revoked or not allowed meanwhile: it will answer no task
            self._out(answer.job, site, "failed", f"it refuses to go on: {answer.why}")
            self._hub.changed()
            return
        state = "accepted" if answer.accepted else "refused"
        if known[site] != state:
            with self._hub.store.tx():
                self._hub.store.set_site(job.id, site, state, answer.why)
                self._hub.store.add_event(job.id, {"event": state, "site": site, "why": answer.why})
            log.info("%s: %s has %s%s", job.id, site, state, f": {answer.why}" if answer.why else "")
        self._check_ready(running)
        self._hub.changed()

    def _check_ready(self, running: Running) -> None:
        """Begin when all have answered, or the minimum has accepted and stragglers had their time."""
        job = running.job
        if running.ready.is_set() or running.is_over():
            return
        states = self._hub.store.sites(job.id)
        accepted = [site for site, (state, _) in states.items() if state in IN]
        pending = [site for site, (state, _) in states.items() if state == "invited"]
        refused = {site: why for site, (state, why) in states.items() if state not in (*IN, "invited")}
        named = job.spec["workflow"].get("min_sites")
        least = self.minimum(job) if named is not None or job.spec["sites"] != "all" else len(states)
        stragglers_late = time.monotonic() - running.begun > START_GRACE_S
        if pending and not stragglers_late:
            return
        if len(accepted) + len(pending) < least:
            reasons = "; ".join(f"{site}: {why}" for site, why in refused.items())
            self.end(job.id, FAILED, f"{len(accepted)} of {least} needed sites take part. {reasons}")
            return
        if len(accepted) >= least:
            running.ready.set()

    def site_state(self, site: str, message: pb.SiteState) -> None:
        """How the job's process fares on a site, and what is free there."""
        if message.figures:
            self.starter.said(site, message.figures)
        known = self.taking_part(message.job).get(site)
        if self.running(message.job) is None:
            self._after_the_end(site, message, known)
            return
        if known is None or message.state == known:
            return
        if message.state in ("left", "failed"):
            self._out(message.job, site, message.state, message.why)
        elif message.state == "running" and known == "accepted":
            self._hub.store.set_site(message.job, site, "running")
        self._hub.changed()

    def _out(self, job: str, site: str, state: str, why: str) -> None:
        """A site that took part does so no more (`left` or `failed`): what it had to do has failed."""
        with self._hub.store.tx():
            self._hub.store.set_site(job, site, state, why)
            self._hub.store.add_event(job, {"event": state, "site": site, "why": why})
        log.warning("%s: %s %s: %s", job, site, state, why)
        self._hub.board.site_out(job, site, why or state)
        self.schedule(hurry=True)

    def _after_the_end(self, site: str, message: pb.SiteState, known: str | None) -> None:
        job = self._hub.store.job(message.job)
        if job is not None and job.state not in FINAL:
            return
        if message.state == "running":  # it was away when the job ended, or was deleted
            state, why = (job.state, job.cause) if job is not None else ("", "over")
            self._hub.sessions.send(site, job_stop=pb.JobStop(job=message.job, state=state, why=why))
        elif message.state == "ended" and job is not None and known in (*IN, "invited"):
            self._hub.store.set_site(job.id, site, "ended")
            self.schedule(hurry=True)
            self._hub.changed()

    def tick(self) -> None:
        with self._lock:
            waiting = [running for running in self._running.values() if not running.ready.is_set()]
        for running in waiting:
            self._check_ready(running)
        for job in self._hub.store.jobs([RECEIVING]):
            if time.time() - job.submitted > SUBMIT_WITHIN_S:
                self.end(job.id, FAILED, f"its files did not arrive within {SUBMIT_WITHIN_S / 3600:.0f} hours")
        if not self._closing:
            self.starter.tick()

    # --- ending

    def end(self, job_id: str, state: str, cause: str) -> bool:
        """Bring a job to its final state: durable first, then everybody is told and the process ended. Once."""
        with self._lock:
            job = self._hub.store.job(job_id)
            if job is None or job.state in FINAL:
                return False
            with self._hub.store.tx():
                self._hub.store.set_job(job_id, state, cause)
                self._hub.store.add_event(job_id, {"event": "ended", "state": state, "cause": cause})
                self._let_go(job_id)
            running = self._running.pop(job_id, None)
            if running is not None:
                with running.lock:
                    running.over = True
                    running.ready.set()
        log.info("%s: %s%s", job_id, state, f": {cause}" if cause else "")
        self._hub.board.forget(job_id)
        self._hub.wires.end(job_id)
        for site in self.taking_part(job_id):
            self._hub.sessions.send(site, job_stop=pb.JobStop(job=job_id, state=state, why=cause))
        with self._hub.store.tx():
            self._hub.blobs.abandon(f"job:{job_id}:")
            self._let_go(job_id)  # also of what came to its end meanwhile
        self._hub.changed()
        if running is not None:
            threading.Thread(target=self._clear, args=(running, state), name="job-end", daemon=True).start()
        return True

    def _let_go(self, job_id: str) -> None:
        for prefix in ("task:", "call:", "late:", "base:", "new"):
            self._hub.blobs.drop_refs(f"job:{job_id}:{prefix}")

    def _clear(self, running: Running, state: str) -> None:
        self._processes.end(running, patience=2.0 if state == "FINISHED" else 0.0)
        self._hub.server_logs.ended(running.job.id)
        self._hub.blobs.collect()
        self.schedule(hurry=True)

    def close(self) -> None:
        """The hub stops: job processes end with it and are started again with it."""
        with self._lock:
            self._closing = True
            running = list(self._running.values())
        self._processes.close(running)
