"""What sites answer to tasks: checked, on disk with its reference, acknowledged, then told to the job's process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fl_runtime.blobs import BlobStore, Staged
from fl_runtime.errors import ProtocolError
from fl_runtime.hub.late import LateResults
from fl_runtime.hub.sessions import Sessions
from fl_runtime.hub.state import BROKEN, FINAL, OPEN, StateStore, Task
from fl_runtime.models.meta import parse_meta
from fl_runtime.proto import fedspan_pb2 as pb

log = logging.getLogger("fedspan.hub")


class _NotHereError(Exception):
    """The content of a result has not come for its task."""


class Answers:
    """Every method may be called from any thread."""

    def __init__(
        self,
        store: StateStore,
        blobs: BlobStore,
        sessions: Sessions,
        late: LateResults,
        answered: Callable[[Task, Task | None], None],
    ) -> None:
        """`answered(task, done)`: it is stored; `done` is what the job's process has to look at, if anything."""
        self._store = store
        self._blobs = blobs
        self._sessions = sessions
        self._late = late
        self._answered = answered
        # where codecs come in (hub/wires.py): how a result has to be read; ProtocolError: it can't be, any more
        self.noted: Callable[[Task, pb.TaskResult, dict[str, Any]], dict[str, Any]] = lambda _, __, meta: meta

    def take(self, site: str, result: pb.TaskResult) -> None:
        """A site's result: on disk with its reference, then acknowledged, then told to the job's process."""
        task = self._store.task(result.task)
        if task is None or task.site != site or task.job != result.job:
            self._ack(site, result, False, "there is no such task for this site")
            return
        if task.state != OPEN and (result.error or not self._late.wanted(task)):
            self._ack(site, result, True, "")  # again, after a lost acknowledgement; or too late
            return
        if result.error:
            with self._store.tx():
                self._store.judge(task.id, BROKEN, result.error)
                self._store.add_event(
                    task.job, {"event": "task-failed", "site": site, "round": task.round, "why": result.error}
                )
            self._ack(site, result, True, "")
            self._answered(task, None)
            return
        try:
            meta = parse_meta(result.meta)
        except ValueError as error:
            self._refuse(task, result, str(error))
            return
        staged: list[Staged] = []
        blob = result.payload.blob if result.HasField("payload") and result.payload.blob else None
        if blob is not None and result.payload.length == len(result.payload.inline):
            staged.append(self._blobs.stage_bytes(result.payload.inline))
        if staged and staged[0][0].id != blob:
            self._blobs.discard(*staged[0])
            self._ack(site, result, False, "the content does not have the announced hash")
            return
        try:
            kept, done = self._keep(task, result, meta, blob, staged)
        except _NotHereError:
            now = self._store.task(task.id)
            if now is not None and now.state != OPEN:
                self._ack(site, result, False, "its content went when its round was over")
                return
            log.warning("%s: the result of %s came before its content; waiting for it to be sent again", task.job, site)
            return
        except ProtocolError as error:
            log.warning("%s: a result of %s is not kept: %s", task.job, site, error)
            self._ack(site, result, False, str(error))
            return
        self._ack(site, result, True, "")
        if kept:
            self._answered(task, done)

    def _keep(
        self, task: Task, result: pb.TaskResult, meta: dict[str, Any], blob: bytes | None, staged: Sequence[Staged]
    ) -> tuple[bool, Task | None]:
        """Store an answer, or keep it as a late one; whether it was, and what the job's process has to look at.

        Raises:
            _NotHereError: its content is not here, or not for this task.
            ProtocolError: as `noted`.
        """
        with self._blobs.registering(*staged) as register:
            now, job = self._store.task(task.id), self._store.job(task.job)
            if now is None or job is None or job.state in FINAL:
                return False, None
            if now.state != OPEN and not self._late.wanted(now):  # its round has closed meanwhile
                return False, None
            if blob is not None and not staged and not self._granted(now, blob):
                raise _NotHereError

            def refer(owner: str) -> None:
                if staged:
                    register(staged[0], owner)
                elif blob is not None:
                    self._blobs.add_ref(blob, owner)

            if now.state != OPEN:
                self._late.bank(now, self.noted(now, result, meta), blob, refer)
                return True, None
            refer(f"job:{task.job}:task:{task.id}")
            self._store.answer(task.id, self.noted(now, result, meta), blob)
            return True, self._store.task(task.id)

    def _granted(self, task: Task, blob: bytes) -> bool:
        """Whether the content is here because it came for this task: knowing the id of another's grants nothing."""
        owners = self._blobs.owners(blob)
        return f"job:{task.job}:task:{task.id}" in owners or self._late.owner(task.job, task.site) in owners

    def _refuse(self, task: Task, result: pb.TaskResult, why: str) -> None:
        """The answer is none: the site will not send another one."""
        with self._store.tx():
            self._store.judge(task.id, BROKEN, why)
            self._store.add_event(task.job, {"event": "refused", "site": task.site, "round": task.round, "why": why})
        self._ack(task.site, result, False, why)
        self._answered(task, None)

    def _ack(self, site: str, result: pb.TaskResult, accepted: bool, why: str) -> None:
        ack = pb.ResultAck(job=result.job, task=result.task, accepted=accepted, why=why)
        self._sessions.send(site, result_ack=ack)
