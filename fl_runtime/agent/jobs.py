"""The jobs of a site: set aside for, admitted, started, ended."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fl_runtime import localsock, processes
from fl_runtime.agent import cgroups, isolation, place, policy, requirements, transfer
from fl_runtime.agent.capacity import Capacity, FullError, Held
from fl_runtime.agent.clients import serve_clients
from fl_runtime.agent.interpreter import Interpreter, job_interpreter
from fl_runtime.agent.place import Place
from fl_runtime.agent.run import Run
from fl_runtime.durable import write_whole
from fl_runtime.errors import FlError, ProtocolError, RefusedError
from fl_runtime.job.bundle import unpack
from fl_runtime.job.resources import parse_need
from fl_runtime.job.spec import JobSpec, parse_spec, read_spec
from fl_runtime.names import STOP_S
from fl_runtime.patience import is_full, patiently
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.agent.main import Agent

log = logging.getLogger("fedspan.agent")


class SiteJobs:
    """What the server asks of this site, job by job: all but `reserve` on the worker for jobs, one after another."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._kit, self._journal, self._state = agent.kit, agent.journal, agent.state
        self.capacity = Capacity(agent.kit)
        self._runs: dict[str, Run] = {}
        self._sockets: dict[str, localsock.Server] = {}
        self._lock = threading.Lock()

    # --- views

    def runs(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def run_of(self, job: str) -> Run | None:
        with self._lock:
            return self._runs.get(job)

    def any_unfinished(self) -> bool:
        """Whether a job has been accepted here that has neither ended nor been given up by this site."""
        return any(self.run_of(row.id) is not None for row in self._journal.jobs("accepted"))

    # --- before and after

    def recover(self) -> None:
        """Take up what an earlier life left: adopt living processes; the rest waits for the server's word."""
        for row in self._journal.jobs("accepted"):
            folder = self._state / "jobs" / row.id
            if not (folder / "bundle").exists():
                continue
            spec = parse_spec(row.spec)
            try:
                chosen = isolation.choose(self._kit, self._state, row.id, spec)
                run = self._new_run(row.id, spec, folder, policy.data_paths(self._kit), chosen)
            except (FlError, OSError) as error:
                if is_full(error):
                    raise  # whoever starts the agent again does so until there is room: the job can go on then
                log.error("%s: it can't go on here: %s", row.id, error)
                if row.process is not None and row.process.alive():
                    processes.end_group(row.process.pid, grace=STOP_S + place.SWEEP_S)
                self._journal.set_job(row.id, "failed", _refusal(error))
                continue
            self._restore(run)
            run.epoch = row.epoch
            run.requeue()
            if row.process is not None and row.process.alive():
                run.adopt(row.process, row.epoch)
            else:  # nothing of an earlier launch may take a task
                run.place.sweep()
                run.epoch += 1

    def end_all(self) -> None:
        """The agent stops."""
        for run in self.runs():
            run.end()
        with self._lock:
            sockets, self._sockets = list(self._sockets.values()), {}
        for socket in sockets:
            socket.close()

    def _new_run(self, job: str, spec: JobSpec, folder: Path, data: dict[str, str], chosen: isolation.Isolation) -> Run:
        def interpreter() -> Interpreter:
            return job_interpreter(self._kit.resources(), self._state, self._kit.name)

        where = Place(self._kit, self._state, folder, chosen, self._journal.blobs)
        where.prepare()
        run = Run(job, spec, where, data, self._journal, self._run_ended, interpreter)
        server = serve_clients(self._agent, where.socket, job, chosen.user[0] if chosen.user else None)
        with self._lock:
            self._runs[job] = run
            self._sockets[job] = server
        return run

    # --- reservations

    def reserve(self, message: pb.Reserve) -> None:
        """Set aside what a job needs, until its lease ends; on the link's thread, for it takes no time."""
        reserved = pb.Reserved(job=message.job, attempt=message.attempt)
        try:
            need = parse_need(json.loads(message.need or b"{}"))
            self.capacity.hold(message.job, need, message.lease_ms / 1000)
            reserved.granted = True
        except FullError as error:
            reserved.why, reserved.never = str(error), error.never
        except (FlError, ValueError) as error:
            reserved.why, reserved.never = str(error), True
        reserved.figures = self.figures()
        self._agent.link.send(reserved=reserved)

    def figures(self) -> bytes:
        """What there is and what of it is free, for the server."""
        try:
            return json.dumps(self.capacity.figures()).encode()
        except FlError as error:
            return json.dumps({"error": str(error)}).encode()

    def tell_figures(self) -> None:
        self._agent.link.send(site_state=pb.SiteState(state="here", figures=self.figures()))

    def _restore(self, run: Run) -> None:
        try:
            held = Held(**json.loads((run.place.folder / "held.json").read_text()))
            held.gpus = tuple(held.gpus)
        except (OSError, ValueError, TypeError):
            held = Held((), run.spec.need.memory, run.spec.need.slots)
        self.capacity.restore(run.job, held)
        run.gpus, run.memory = held.gpus, held.memory

    def _hold(self, run: Run) -> None:
        held = self.capacity.hold(run.job, run.spec.need)
        run.gpus, run.memory = held.gpus, held.memory
        write_whole(run.place.folder / "held.json", json.dumps({**asdict(held), "until": None}).encode())

    # --- start

    def start(self, start: pb.JobStart) -> None:
        """The server asks this site to take part."""
        answer = pb.JobAnswer(job=start.job, accepted=True)
        known, present = self._journal.job(start.job), self.run_of(start.job)
        try:
            run = self._admit(start)
            if known is None or known.state not in ("left", "failed"):
                self._hold(run)
        except FullError as error:  # its lease is over, and others came
            answer.accepted, answer.why, answer.busy = False, str(error), not error.never
        except (FlError, OSError) as error:
            passes = present is not None or is_full(error) or not self._agent.link.connected
            if not isinstance(error, RefusedError) and passes:
                raise  # the job goes on here, or it passes, or the server asks again
            answer.accepted, answer.why = False, _refusal(error)
            log.warning("%s: refused: %s", start.job, error)
            noted = self._journal.job(start.job)
            if noted is None:
                document, bundle = start.envelope.document, start.bundle.blob
                self._journal.add_job(start.job, document, bundle, {}, "refused", answer.why)
            elif noted.state == "accepted" and self.run_of(start.job) is None:
                self._journal.set_job(start.job, "refused", answer.why)
            self.capacity.release(start.job, only_lease=True)
        self._agent.link.send(job_answer=answer)
        if not answer.accepted:
            if present is not None and not answer.busy:
                present.end()
                self._run_ended(present, "failed", answer.why)
            return
        self._agent.reports.resume(run, start.log_have, start.metric_have)
        known = self._journal.job(start.job)
        if known is not None and known.state in ("left", "failed"):
            self._agent.link.send(site_state=pb.SiteState(job=start.job, state=known.state, why=known.why))
            return
        run.start()

    def _admit(self, start: pb.JobStart) -> Run:
        known = self._journal.job(start.job)
        fresh = known is None or known.state == "refused"
        ended = known is not None and known.state == "over"
        envelope = known.envelope if known else None
        policy.check_envelope(self._kit, start, envelope, ended, self._agent.revocations, goes_on=not fresh)
        present = self.run_of(start.job)
        if present is not None:
            return present
        folder = self._state / "jobs" / start.job
        self._agent.busy.touch()
        self._bring(start, folder)
        try:
            spec = read_spec(folder / "bundle")
            data = policy.check_job(self._kit, spec)
            chosen = isolation.choose(self._kit, self._state, start.job, spec)
            policy.check_readable(self._kit, self._state, chosen, data)
            requirements.provide(self._kit, self._state, spec, folder / "packages")
        except RefusedError:
            raise
        except FlError as error:
            raise RefusedError("The job is refused", why=str(error)) from None
        if fresh:
            document = start.envelope.document
            self._journal.add_job(start.job, document, start.bundle.blob, spec.document(), "accepted", "")
        return self._new_run(start.job, spec, folder, data, chosen)

    def _bring(self, start: pb.JobStart, folder: Path) -> None:
        """The job's files, exactly those that were signed."""
        blobs, bundle = self._journal.blobs, start.bundle
        owner = f"job:{start.job}:bundle"
        if not blobs.has(bundle.blob):
            if bundle.length == len(bundle.inline):
                if blobs.put(bundle.inline, owner) != bundle.blob:
                    raise RefusedError("The job is refused", why="its bundle arrived damaged")
            else:
                stub = self._agent.link.bulk()
                if stub is None:
                    raise ProtocolError("the link broke before the bundle was here")
                transfer.fetch(stub, blobs, pb.BlobQuery(blob=bundle.blob, job=start.job), owner)
        blobs.add_ref(bundle.blob, owner)
        if (folder / "bundle").exists():
            return
        place.clear(folder)
        folder.mkdir(parents=True, mode=0o750)
        try:
            unpack(blobs.read(bundle.blob), folder / "unpacking")
        except FlError as error:
            raise RefusedError(error.what, why=error.why) from None
        (folder / "unpacking").rename(folder / "bundle")

    # --- the end

    def _run_ended(self, run: Run, state: str, why: str) -> None:
        log.warning("%s: %s: %s", run.job, state, why)
        patiently(lambda: self._journal.set_job(run.job, state, why), lambda: not run.over, run.job)
        self.capacity.release(run.job)
        self._agent.reports.flush(run)
        self._agent.link.send(site_state=pb.SiteState(job=run.job, state=state, why=why, figures=self.figures()))

    def stop(self, stop: pb.JobStop) -> None:
        """The job is over: everything of it goes, but the memory of its id."""
        with self._lock:
            run = self._runs.pop(stop.job, None)
            socket = self._sockets.pop(stop.job, None)
        if run is not None:
            run.end()
            log.info("%s: over: %s %s", stop.job, stop.state, stop.why)
        self.capacity.release(stop.job)
        if run is not None:
            self._agent.reports.ended(run, self.figures())
        else:
            self._agent.link.send(site_state=pb.SiteState(job=stop.job, state="ended", figures=self.figures()))
        if socket is not None:
            socket.close()
        self._agent.shaping.end(stop.job)
        self._journal.end_job(stop.job, stop.state)
        self._agent.busy.touch()
        self._journal.blobs.collect()
        if run is not None and run.memory:
            cgroups.remove(self._state, stop.job)
        place.clear(self._state / "jobs" / stop.job)


def _refusal(error: FlError | OSError) -> str:
    """In one line, for others: what is wrong in a file of this machine's owner stays in its own log."""
    if isinstance(error, RefusedError):
        return policy.reason(error)
    return error.what if isinstance(error, FlError) else str(error)
