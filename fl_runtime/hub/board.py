"""Open calls of all running jobs: tasks out, results in, each closed by the quorum."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fl_runtime.blobs import BlobStore
from fl_runtime.hub.quorum import DEFAULT_GRACE_S, Part, decide
from fl_runtime.hub.sessions import Sessions
from fl_runtime.hub.state import ACCEPTED, ANSWERED, BROKEN, OPEN, REFUSED, Call, StateStore, Task
from fl_runtime.proto import fedspan_pb2 as pb

log = logging.getLogger("fedspan.hub")


class Listener(Protocol):
    """The job's process, as the board sees it."""

    def result(self, task: Task) -> None: ...
    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None: ...


@dataclass(eq=False)
class _Open:
    call: Call
    listener: Listener
    since: float = field(default_factory=time.monotonic)
    why: str = ""


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
        self, store: StateStore, blobs: BlobStore, sessions: Sessions, taking_part: Callable[[str], Mapping[str, str]]
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._sessions = sessions
        self._taking_part = taking_part  # job -> {site: state in the job}
        self._calls: dict[tuple[str, int, int], _Open] = {}
        self._lock = threading.RLock()

    # --- from the job's process

    def open(self, call: Call, listener: Listener, out: Mapping[str, str]) -> None:
        """Make a call, or take up a recorded one: what is known is told to the listener, what is missing is pushed.

        Args:
            out: sites that have left the job, with the reason: their tasks have failed from the start.

        Raises:
            NotDeterministicError: the recorded call was another one.
        """
        key = (call.job, call.round, call.index)
        with self._lock, self._store.tx():
            recorded = self._store.call(*key)
            if recorded is None:
                tasks = [
                    Task(f"{call.job}/{call.round}.{call.index}/{site}", *key, site, 1, OPEN) for site in call.targets
                ]
                self._store.open_call(call, tasks)
                for task in tasks:
                    if task.site in out:
                        self._store.judge(task.id, BROKEN, out[task.site])
                if call.payload is not None:
                    self._blobs.add_ref(call.payload, f"job:{call.job}:call:{call.round}:{call.index}")
                recorded = call
            elif recorded.digest != call.digest:
                raise NotDeterministicError(
                    f"call {call.index} of round {call.round} was {recorded.name!r} to {list(recorded.targets)} before"
                    f" the restart and is {call.name!r} to {list(call.targets)} with another content now"
                )
            if recorded.state == "open":
                self._calls[key] = _Open(recorded, listener)
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

    def judge(self, task_id: str, ok: bool, why: str) -> None:
        """The job's process has looked at a result."""
        task = self._store.task(task_id)
        if task is None or task.state != ANSWERED:
            return
        self._store.judge(task_id, ACCEPTED if ok else REFUSED, why)
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

    # --- from sites

    def answer(self, site: str, result: pb.TaskResult) -> None:
        """A site's result: on disk with its reference, then acknowledged, then told to the job's process."""
        task = self._store.task(result.task)
        if task is None or task.site != site or task.job != result.job:
            self._ack(site, result, False, "there is no such task for this site")
            return
        if task.state != OPEN:
            self._ack(site, result, True, "")  # again, after a lost acknowledgement
            return
        if result.error:
            with self._store.tx():
                self._store.judge(task.id, BROKEN, result.error)
                self._store.add_event(
                    task.job, {"event": "task-failed", "site": site, "round": task.round, "why": result.error}
                )
            self._ack(site, result, True, "")
            self._evaluate((task.job, task.round, task.index))
            return
        staged = None
        blob = result.payload.blob if result.HasField("payload") and result.payload.blob else None
        if blob is not None:
            if result.payload.length == len(result.payload.inline):
                staged = self._blobs.stage_bytes(result.payload.inline)
                if staged[0].id != blob:
                    self._ack(site, result, False, "the content does not have the announced hash")
                    return
            elif not self._blobs.has(blob):
                log.warning(
                    "%s: the result of %s came before its content; waiting for it to be sent again", task.job, site
                )
                return
        try:
            meta = json.loads(result.meta or b"{}")
        except ValueError:
            self._ack(site, result, False, "its meta is not JSON")
            return
        owner = f"job:{task.job}:task:{task.id}"
        with self._store.tx():
            now = self._store.task(task.id)
            if now is None or now.state != OPEN:
                self._ack(site, result, True, "")
                return
            if staged is not None:
                self._blobs.register(*staged, owner)
            elif blob is not None:
                self._blobs.add_ref(blob, owner)
            self._store.answer(task.id, meta, blob)
            done = self._store.task(task.id)
        self._ack(site, result, True, "")
        with self._lock:
            entry = self._calls.get((task.job, task.round, task.index))
        if entry is not None and done is not None:
            entry.listener.result(done)

    def _ack(self, site: str, result: pb.TaskResult, accepted: bool, why: str) -> None:
        ack = pb.ResultAck(job=result.job, task=result.task, accepted=accepted, why=why)
        self._sessions.send(site, result_ack=ack)

    def push_open(self, job: str, site: str) -> None:
        """Push what the site has not answered yet: after it connected, or joined."""
        for task in self._store.open_tasks(job, site):
            call = self._store.call(task.job, task.round, task.index)
            if call is not None and call.state == "open":
                self._push(call, task)

    def _push(self, call: Call, task: Task) -> None:
        self._sessions.send(
            task.site,
            task=pb.Task(
                job=task.job,
                task=task.id,
                attempt=task.attempt,
                name=call.name,
                meta=json.dumps(call.meta).encode(),
                payload=payload(self._blobs, call.payload),
            ),
        )

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

    def _note_waited(self, entry: _Open) -> None:
        now = time.monotonic()
        self._store.add_waited(entry.call, now - entry.since)
        entry.since = now

    def _evaluate(self, key: tuple[str, int, int]) -> None:
        with self._lock:
            entry = self._calls.get(key)
            if entry is None:
                return
            call, settings = entry.call, entry.call.settings
            parts = [
                Part(task.site, task.state, self._sessions.lost_for(task.site), task.why)
                for task in self._store.tasks(*key)
            ]
            waited = call.waited + time.monotonic() - entry.since
            least = settings.get("min")
            minimum = len(parts) if least is None else int(least)
            deadline = settings.get("deadline")
            grace = float(settings.get("grace", DEFAULT_GRACE_S))
            decision = decide(parts, minimum, waited, deadline, grace)
            entry.why = decision.why
            if decision.verdict == "open":
                return
            outcome = {
                "verdict": decision.verdict,
                "why": decision.why,
                "used": [part.site for part in parts if part.state == ACCEPTED],
                "missing": {part.site: part.why or part.state for part in parts if part.state != ACCEPTED},
            }
            self._store.close_call(call, outcome)
            del self._calls[key]
        for part in parts:
            if part.state in (OPEN, ANSWERED):
                task_id = f"{call.job}/{call.round}.{call.index}/{part.site}"
                self._sessions.send(part.site, task_cancel=pb.TaskCancel(job=call.job, task=task_id))
        entry.listener.closed(call, outcome)
