"""Open calls of all running jobs: tasks out, results in, each closed by the quorum."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fl_runtime.blobs import BlobStore
from fl_runtime.hub.answers import Answers
from fl_runtime.hub.late import LateResults
from fl_runtime.hub.quorum import DEFAULT_GRACE_S, Decision, Part, decide
from fl_runtime.hub.sessions import Sessions
from fl_runtime.hub.state import ACCEPTED, ANSWERED, BROKEN, FINAL, OPEN, REFUSED, Call, Job, StateStore, Task
from fl_runtime.proto import fedspan_pb2 as pb

log = logging.getLogger("fedspan.hub")

_NOTE_WAITED_S = 2.0  # of a deadline, a kill of the server gives so much back at most


class Listener(Protocol):
    """The job's process, as the board sees it."""

    def result(self, task: Task) -> None: ...
    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None: ...


@dataclass(eq=False)
class _Open:
    call: Call
    listener: Listener
    since: float = field(default_factory=time.monotonic)
    noted: float = 0.0  # seconds after `since` that are in the store
    queued: dict[str, float] = field(default_factory=dict)  # site -> its time in the bulk queue before this call
    why: str = ""
    met: float | None = None  # when the minimum was reached


class NotDeterministicError(Exception):
    """A replayed workflow asked for something else than before."""


def digest(name: str, targets: Sequence[str], payload: bytes | None, meta: Mapping[str, Any]) -> str:
    body = json.dumps([name, list(targets), payload.hex() if payload else None, meta], sort_keys=True)
    return hashlib.blake2b(body.encode(), digest_size=16).hexdigest()


def payload(blobs: BlobStore, blob: bytes | None) -> pb.Payload | None:
    """A blob as part of a message: small ones inside."""
    if blob is None:
        return None
    manifest = blobs.manifest(blob)
    if manifest is None:
        return None
    inline = blobs.inline(blob)
    return pb.Payload(blob=blob, length=manifest.length, inline=inline or b"")


class Board:
    """All methods may be called from any thread; the board's lock is never held around a listener's callback."""

    def __init__(
        self,
        store: StateStore,
        blobs: BlobStore,
        sessions: Sessions,
        queued: Callable[[str], float] = lambda site: 0.0,
    ) -> None:
        """`queued`: seconds in total in which a site's transfers waited in the server's queue."""
        self._store = store
        self._blobs = blobs
        self._sessions = sessions
        self._queued = queued
        self.late = LateResults(store, blobs)
        self._calls: dict[tuple[str, int, int], _Open] = {}
        self._lock = threading.RLock()
        self.answers = Answers(store, blobs, sessions, self.late, self._answered)
        # where codecs come in (hub/wires.py): what a site is sent; None where a model is not ready for that
        self.payload_for: Callable[[Call, str], pb.Payload | None] = lambda call, _: payload(blobs, call.payload)

    # --- from the job's process

    def open(self, call: Call, listener: Listener, out: Callable[[], Mapping[str, str]]) -> None:
        """Make a call, or take up a recorded one: what is known is told to the listener, what is missing is pushed.

        Args:
            out: gives the sites that have left the job, with the reason: their tasks have failed from the start.

        Raises:
            NotDeterministicError: the recorded call was another one.
        """
        key = (call.job, call.round, call.index)
        with self._lock:
            recorded = self._recorded(key, call, out)
            if recorded is None:
                return
            if recorded.state == "open":  # in the store now: a commit that found no room is tried again, from the start
                queued = {site: self._queued(site) for site in recorded.targets}
                self._calls[key] = _Open(recorded, listener, queued=queued)
        known = sorted(
            (task for task in self._store.tasks(*key) if task.state in (ANSWERED, ACCEPTED)), key=lambda t: t.order
        )
        for task in known:
            listener.result(task)
        if recorded.state != "open":
            listener.closed(recorded, recorded.outcome)
            return
        for task in self._store.tasks(*key):
            if task.state == OPEN:
                self._push(recorded, task)
        self._evaluate(key)

    def _recorded(self, key: tuple[str, int, int], call: Call, out: Callable[[], Mapping[str, str]]) -> Call | None:
        """The call as it is in the store, from now on or since before; None when its job is over.

        Who is out is asked within: `site_out` for whoever leaves later finds the tasks.
        """
        with self._store.tx():
            job = self._store.job(call.job)
            if job is not None and job.state in FINAL:
                return None  # it has ended just now, and refers to nothing any more
            recorded = self._store.call(*key)
            if recorded is not None:
                if recorded.digest != call.digest:
                    raise NotDeterministicError(
                        f"call {call.index} of round {call.round} was {recorded.name!r} to {list(recorded.targets)}"
                        f" before the restart and is {call.name!r} to {list(call.targets)} with another content now"
                    )
                if recorded.state == "open":  # a site may have left in the moment in which the server was killed
                    self._without(self._store.tasks(*key), out())
                return recorded
            call = self._as_the_job_says(job, call)
            tasks = [Task(f"{call.job}/{call.round}.{call.index}/{site}", *key, site, 1, OPEN) for site in call.targets]
            self._store.open_call(call, tasks)
            self._without(tasks, out())
            for blob in (call.payload, *map(bytes.fromhex, call.meta.get("blobs", {}).values())):
                if blob is not None:
                    self._blobs.add_ref(blob, f"job:{call.job}:call:{call.round}:{call.index}")
            return call

    def _without(self, tasks: Sequence[Task], out: Mapping[str, str]) -> None:
        for task in tasks:
            if task.state == OPEN and task.site in out:
                self._store.judge(task.id, BROKEN, out[task.site])

    def _as_the_job_says(self, job: Job | None, call: Call) -> Call:
        """Settings of the whole job that hold for each of its calls."""
        workflow = job.spec.get("workflow", {}) if job is not None else {}
        chosen = {key: workflow[key] for key in ("late", "below_quorum") if workflow.get(key) is not None}
        return replace(call, settings={**chosen, **call.settings})

    def judge(self, task_id: str, ok: bool, why: str) -> None:
        """The job's process has looked at a result."""
        task = self._store.task(task_id)
        if task is None or task.state != ANSWERED:
            return
        job = self._store.job(task.job)
        if job is None or job.state in FINAL:
            return  # no fault of the site's
        self._store.judge(task_id, ACCEPTED if ok else REFUSED, why)
        if ok and "late_round" not in task.meta:
            self.late.superseded(task)
        if not ok:
            log.warning("%s: the result of %s is refused: %s", task.job, task.site, why)
            self._store.add_event(task.job, {"event": "refused", "site": task.site, "round": task.round, "why": why})
        self._evaluate((task.job, task.round, task.index))

    def forget(self, job: str) -> None:
        """The job's process is gone; its calls stay in the store."""
        with self._lock:
            for key in [key for key in self._calls if key[0] == job]:
                self._note_waited(self._calls.pop(key))

    def waiting(self, job: str) -> list[str]:
        """What the job waits for, for people."""
        with self._lock:
            return [entry.why for key, entry in self._calls.items() if key[0] == job and entry.why]

    # --- to sites

    def push_open(self, job: str, site: str) -> None:
        """Push what the site has not answered yet, after it connected or joined; what is closed it need not begin."""
        for closed, unless_begun in self.late.closed(job, site):
            cancel = pb.TaskCancel(job=job, task=closed, unless_begun=unless_begun)
            self._sessions.send(site, task_cancel=cancel)
        for task in self._store.open_tasks(job, site):
            call = self._store.call(task.job, task.round, task.index)
            if call is not None and call.state == "open":
                self._push(call, task)

    def _push(self, call: Call, task: Task) -> None:
        content = self.payload_for(call, task.site)
        if content is None and call.payload is not None:
            return  # the server's filters have not seen it yet: the job's process is about to ask for that
        self._sessions.send(
            task.site,
            task=pb.Task(
                job=task.job,
                task=task.id,
                attempt=task.attempt,
                name=call.name,
                meta=json.dumps(call.meta).encode(),
                payload=content,
            ),
        )

    def _answered(self, task: Task, done: Task | None) -> None:
        """A site's answer is stored: `done` for the job's process to look at; None: there is nothing to look at."""
        if done is None:
            self._evaluate_job(task.job)
            return
        with self._lock:
            entry = self._calls.get((task.job, task.round, task.index))
        if entry is not None:
            entry.listener.result(done)

    # --- time and sites

    def site_out(self, job: str, site: str, why: str) -> None:
        """The site will not answer any more in this job: its open tasks have failed."""
        hit = self._store.open_tasks(job, site)
        for task in hit:
            self._store.judge(task.id, BROKEN, why)
        for task in hit:
            self._evaluate((task.job, task.round, task.index))

    def tick(self) -> None:
        with self._lock:
            keys = list(self._calls)
        for key in keys:
            self._evaluate(key)

    def _evaluate_job(self, job: str) -> None:
        with self._lock:
            keys = [key for key in self._calls if key[0] == job]
        for key in keys:
            self._evaluate(key)

    def _note_waited(self, entry: _Open) -> None:
        """The deadline counts the time that the server is up: a restarted one goes on from what is noted."""
        so_far = time.monotonic() - entry.since
        self._store.add_waited(entry.call, so_far - entry.noted)
        entry.noted = so_far

    def _evaluate(self, key: tuple[str, int, int]) -> None:
        with self._lock:
            entry = self._calls.get(key)
            if entry is None:
                return
            call, settings = entry.call, entry.call.settings
            tasks = self._store.tasks(*key)
            stand_ins = {task.site: self.late.of(call, task.site) for task in tasks if task.state == OPEN}
            parts = [
                Part(
                    task.site,
                    task.state,
                    self._sessions.lost_for(task.site),
                    task.why,
                    self._queued(task.site) - entry.queued.get(task.site, 0.0),
                    stand_ins.get(task.site) is not None,
                )
                for task in tasks
            ]
            so_far = time.monotonic() - entry.since
            waited = call.waited + so_far
            if settings.get("deadline") is not None and so_far - entry.noted >= _NOTE_WAITED_S:
                self._note_waited(entry)
            least = settings.get("min")
            minimum = len(parts) if least is None else int(least)
            grace = float(settings.get("grace", DEFAULT_GRACE_S))
            decision = decide(parts, minimum, waited, settings.get("deadline"), grace, settings.get("below_quorum"))
            used: list[Task] = []
            if decision.verdict == "use-late":
                for task in tasks:
                    late = stand_ins.get(task.site)
                    if late is not None and (done := self.late.stand_in(task, late)) is not None:
                        used.append(done)
            if decision.verdict == "open" and self._waited_enough(entry, parts, minimum):
                decision = Decision("close")
            entry.why = decision.why
            if decision.verdict == "open":
                return
            outcome = self._close(entry, parts, decision) if decision.verdict != "use-late" else None
        if outcome is None:
            for done in used:
                entry.listener.result(done)
            return
        self._tell_closed(entry, parts, outcome)

    def _waited_enough(self, entry: _Open, parts: Sequence[Part], minimum: int) -> bool:
        """`after_min` seconds have passed since the minimum was reached, and no result waits to be judged."""
        after = entry.call.settings.get("after_min")
        if after is None or sum(part.state == ACCEPTED for part in parts) < minimum:
            return False
        entry.met = entry.met if entry.met is not None else time.monotonic()
        return time.monotonic() - entry.met >= float(after) and not any(part.state == ANSWERED for part in parts)

    def cancel(self, key: tuple[str, int, int], why: str) -> None:
        """The job's process wants no more results of a call: it is closed with those that are there."""
        with self._lock:
            entry = self._calls.get(key)
            if entry is None:
                return
            parts = [Part(task.site, task.state, None, task.why) for task in self._store.tasks(*key)]
            outcome = self._close(entry, parts, Decision("cancelled", why))
        self._tell_closed(entry, parts, outcome)

    def _close(self, entry: _Open, parts: Sequence[Part], decision: Decision) -> dict[str, Any]:
        call = entry.call
        outcome = {
            "verdict": decision.verdict,
            "why": decision.why,
            "used": [part.site for part in parts if part.state == ACCEPTED],
            "missing": {part.site: part.why or part.state for part in parts if part.state != ACCEPTED},
        }
        with self._store.tx():
            self._store.close_call(call, outcome)
            self.late.missed(call)
        del self._calls[(call.job, call.round, call.index)]
        return outcome

    def _tell_closed(self, entry: _Open, parts: Sequence[Part], outcome: Mapping[str, Any]) -> None:
        call = entry.call
        for part in parts:
            if part.state in (OPEN, ANSWERED):
                task_id = f"{call.job}/{call.round}.{call.index}/{part.site}"
                late = call.settings.get("late") == "use"
                cancel = pb.TaskCancel(job=call.job, task=task_id, unless_begun=late)
                self._sessions.send(part.site, task_cancel=cancel)
        entry.listener.closed(call, outcome)
