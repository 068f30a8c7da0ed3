"""The talk with one job process on the server: what it asks for, and what it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fl_runtime import localsock
from fl_runtime.agent.worker import Worker
from fl_runtime.blobs.described import described
from fl_runtime.errors import NONSENSE, FlError, ProtocolError, RefusedError, StorageError
from fl_runtime.hub import replay
from fl_runtime.hub.board import NotDeterministicError, digest
from fl_runtime.hub.recorder import Recorder
from fl_runtime.hub.state import ACCEPTED, FINAL, Call, Task
from fl_runtime.models.meta import check_size
from fl_runtime.names import OWN_TASK, OWN_TASKS
from fl_runtime.patience import is_full, patiently

if TYPE_CHECKING:
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
Message = Mapping[str, Any]
_T = TypeVar("_T")


class JobLink:
    """One job process: its requests in, results and closings of calls out."""

    def __init__(self, hub: Hub, running: Running, connection: localsock.Connection) -> None:
        self._hub = hub
        self._running = running
        self._job = running.job
        self._connection = connection
        self._recorder = Recorder(hub, running)
        self._worker = Worker(f"decode-{self._job.id}") if hub.wires.concerned(self._job) else None

    # --- towards the process (called by the board)

    def result(self, task: Task) -> None:
        """An answer; where codecs or filters are in use it is decoded first, beside the thread that brought it."""
        if self._worker is None:
            self._tell_result(task, task.result, task.meta)
        else:
            self._worker.do(lambda: self._decoded(task))

    def _decoded(self, task: Task) -> None:
        def decode() -> None:
            if self._running.is_over():
                return
            try:
                blob, meta = self._hub.wires.plain(self._job, task)
            except (FlError, OSError, *NONSENSE) as error:
                if is_full(error):
                    raise
                if self._running.is_over():
                    return
                if not isinstance(error, (FlError, OSError)):
                    log.exception("%s: the result of %s makes no sense", self._job.id, task.site)
                self._hub.board.judge(task.id, False, str(error))
                return
            self._tell_result(task, blob, meta)

        self._stored(decode)

    def _tell_result(self, task: Task, blob: bytes | None, meta: dict[str, Any]) -> None:
        message: dict[str, Any] = {
            "event": "result",
            "task": task.id,
            "round": task.round,
            "index": task.index,
            "site": task.site,
            "meta": meta,
            "judged": task.state == ACCEPTED,
        }
        self._send(*self._with_blob(message, blob))

    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None:
        """A call's end, behind the results that came before it."""
        if self._worker is None:
            self._tell_closed(call, outcome)
        else:
            self._worker.do(lambda: self._tell_closed(call, outcome))

    def _tell_closed(self, call: Call, outcome: Mapping[str, Any]) -> None:
        self._send({"event": "closed", "round": call.round, "index": call.index, **outcome})

    def _send(self, message: dict[str, Any], binary: bytes = b"") -> None:
        try:
            self._connection.send(message, binary)
        except OSError:
            log.debug("%s: its process is gone", self._job.id)  # the supervisor of the process acts on it

    def _described(self, blob: str) -> dict[str, str]:
        return {"blob": blob, **described(self._hub.blobs, bytes.fromhex(blob), self._shown)}

    def _shown(self, blob: bytes) -> str:
        """Where the process may read a blob: its file, or a link to it in the job's own folder."""
        path, place = self._hub.blobs.path(blob), self._running.place
        return str(path if place is None else place.show(blob.hex(), path))

    def _with_blob(self, message: dict[str, Any], blob: bytes | None) -> tuple[dict[str, Any], bytes]:
        message["blob"] = blob.hex() if blob else None
        if blob is None:
            return message, b""
        inline = self._hub.blobs.inline(blob)
        if inline is None:
            message["file"] = self._shown(blob)
        return message, inline or b""

    # --- from the process

    def serve(self) -> None:
        """Until the process is gone."""
        try:
            self._serve()
        finally:
            if self._worker is not None:
                self._worker.stop()

    def _serve(self) -> None:
        hub, job = self._hub, self._job
        self._running.ready.wait()  # for sites to accept, however long that takes; the job's end sets it too
        if self._running.is_over():
            return
        boundary = hub.store.last_boundary(job.id)
        hello: dict[str, Any] = {
            "job": job.id,
            "spec": job.spec,
            "bundle": str(self._running.folder / "bundle"),
            "sites": hub.jobs.taking_part_list(job.id),
            "round": boundary.round if boundary else None,
            "state": boundary.state["state"] if boundary else None,
            "tensors": {},
            "orders": replay.orders(hub.store, job.id, boundary.round if boundary else -1),
            "outgrown": replay.outgrown(hub.store, job.id),
        }
        if boundary is not None:
            hello["tensors"] = {key: self._described(blob) for key, blob in boundary.state["tensors"].items()}
        self._send(*self._with_blob(hello, boundary.model if boundary else None))
        while (received := self._connection.receive()) is not None:
            message, binary = received
            handler = getattr(self, "_do_" + str(message.get("op")), None)
            if handler is None:
                self._send({"error": f"unknown operation {message.get('op')!r}"})
                return
            self._handle(handler, message, binary)
            if self._running.is_over():
                return

    def _handle(self, handler: Callable[[Message, bytes], None], message: Message, binary: bytes) -> None:
        """A full disk is waited for, and the process with it; a quota ends the job. Handlers answer last."""
        try:
            self._stored(lambda: handler(message, binary))
        except (RefusedError, StorageError) as error:
            refused = isinstance(error, RefusedError)
            cause = str(error) if refused else f"the server can't store what its process made: {error}"
            if not self._running.is_over():
                self._stored(lambda: self._hub.jobs.end(self._job.id, "FAILED", cause))

    def _stored(self, action: Callable[[], _T]) -> _T:
        return patiently(action, lambda: not self._running.is_over(), self._job.id)

    def _do_blob(self, message: Mapping[str, Any], binary: bytes) -> None:
        """A new blob from the process: a finished file of the spool folder, or the bytes."""
        blobs, given = self._hub.blobs, message.get("file")
        mine = self._stored(lambda: self._given(given)) if given else None
        staged = self._stored(lambda: blobs.stage_file(mine) if mine is not None else blobs.stage_bytes(binary))

        def register() -> bytes:
            with self._hub.store.tx():
                now = self._hub.store.job(self._job.id)
                if now is None or now.state in FINAL:
                    raise RefusedError("The job is over")
                return blobs.register(*staged, f"job:{self._job.id}:new")

        try:
            blob = self._stored(register)
        except BaseException:
            blobs.discard(*staged)
            raise
        self._send({"blob": blob.hex(), "file": self._shown(blob) if staged[1] is None else None})

    def _given(self, file: str) -> Path:
        """A file that was given to the process by `_do_spool`, taken back."""
        path, place = Path(file), self._running.place
        if place is not None:
            return place.take_back(path)
        if path.parent != self._hub.blobs.spool:
            raise ProtocolError("A model must lie in the file that was given for it")
        return path

    def _do_spool(self, message: Mapping[str, Any], _: bytes) -> None:
        place, size = self._running.place, int(message["size"])
        self._send({"file": str(self._hub.blobs.new_spool_file(size) if place is None else place.new_file(size))})

    def _do_call(self, message: Mapping[str, Any], _: bytes) -> None:
        name = str(message["name"])
        if name.startswith(OWN_TASK) and name not in OWN_TASKS:
            raise RefusedError(
                f"The job can't give a task the name {name!r}",
                why=f"names that begin with {OWN_TASK} are the runtime's own",
                next_step="give the task another name in the job's code",
            )
        targets = tuple(sorted(message["targets"])) if message.get("targets") is not None else None
        round_, index = int(message["round"]), int(message["index"])
        recorded = self._hub.store.call(self._job.id, round_, index)
        if targets is None:  # everybody who takes part; after a restart: who took part then
            everybody = {*self._hub.jobs.taking_part_list(self._job.id), *self._hub.jobs.out(self._job.id)}
            targets = recorded.targets if recorded else tuple(sorted(everybody))
        meta = message["meta"]
        payload = self._recorder.own(message.get("blob"))
        for blob in (meta.get("blobs") or {}).values():
            self._recorder.own(blob)
        call = Call(
            job=self._job.id,
            round=round_,
            index=index,
            name=name,
            targets=targets,
            digest=digest(name, targets, payload, meta),
            meta=meta,
            payload=payload,
            settings=message["settings"],
        )
        try:
            check_size(call.meta, f"the task {call.name} of round {call.round}")
            self._hub.wires.prepare(self._job, call)
            self._hub.board.open(call, self, lambda: self._hub.jobs.out(self._job.id))
        except FlError as error:
            if is_full(error):
                raise
            self._hub.jobs.end(self._job.id, "FAILED", str(error))
        except NotDeterministicError as error:
            self._hub.jobs.end(self._job.id, "FAILED", f"the workflow is not deterministic: {error}")

    def _do_judge(self, message: Mapping[str, Any], _: bytes) -> None:
        task = self._hub.store.task(str(message["task"]))
        if task is not None and task.job == self._job.id:
            self._hub.board.judge(task.id, bool(message["ok"]), str(message.get("why", "")))

    def _do_sites(self, message: Mapping[str, Any], _: bytes) -> None:
        """Who takes part, recorded like a call when it is another answer than before: a replay sees the same."""
        key = (self._job.id, int(message["round"]), int(message["index"]))
        now = self._hub.jobs.taking_part_list(self._job.id)
        self._send(replay.sites(self._hub.store, key, list(message["known"]), now))

    def _do_cancel(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.board.cancel((self._job.id, int(message["round"]), int(message["index"])), str(message["why"]))

    def _do_taken(self, message: Mapping[str, Any], _: bytes) -> None:
        place = (int(message["round"]), int(message["index"]), int(message["place"]))
        replay.taken(self._hub.store, self._job.id, *place)

    def _do_record(self, message: Mapping[str, Any], _: bytes) -> None:
        key = (int(message["round"]), int(message["index"]), str(message["name"]))
        self._send({"value": replay.record(self._hub.store, self._job.id, *key, message["value"])})

    def _do_outgrown(self, message: Mapping[str, Any], _: bytes) -> None:
        self._recorder.outgrown(message)
        self._recorder.release()

    def _do_checkpoint(self, message: Mapping[str, Any], _: bytes) -> None:
        self._recorder.checkpoint(message)
        self._send({"ok": True})
        self._hub.changed()

    def _do_commit(self, message: Mapping[str, Any], _: bytes) -> None:
        self._recorder.commit(message)
        self._send({"ok": True})
        self._running.progressed()
        self._recorder.release()
        self._hub.changed()

    def _do_finish(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.jobs.end(self._job.id, "FINISHED", "")
        self._send({"ok": True})

    def _do_fail(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.jobs.end(self._job.id, "FAILED", str(message.get("why", "")))
        self._send({"ok": True})

    def _do_metric(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.store.add_metrics(self._job.id, "server", message["items"])

    def _do_event(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.store.add_event(self._job.id, dict(message["document"]))
        self._hub.changed()
