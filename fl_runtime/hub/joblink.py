"""The hub's local socket: job processes attach to it, and `status` asks through it."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_runtime import localsock
from fl_runtime.hub.board import NotDeterministicError, digest
from fl_runtime.hub.state import ACCEPTED, Boundary, Call, Task

if TYPE_CHECKING:
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")


def serve_local(hub: Hub, path: Path) -> localsock.Server:
    """Listens on the hub's local socket; job processes attach, `status` asks."""

    def attach(connection: localsock.Connection, hello: Mapping[str, Any]) -> None:
        running = hub.jobs.running(str(hello.get("job")))
        if running is None or running.epoch != hello.get("epoch"):
            connection.send({"error": "this launch of the job is over"})
            return
        JobLink(hub, running, connection).serve()

    return localsock.Server(path, hub.status, attach, log)


class JobLink:
    """One job process: its requests in, results and closings of calls out."""

    def __init__(self, hub: Hub, running: Running, connection: localsock.Connection) -> None:
        self._hub = hub
        self._running = running
        self._job = running.job
        self._connection = connection

    # --- towards the process (called by the board)

    def result(self, task: Task) -> None:
        message: dict[str, Any] = {
            "event": "result",
            "task": task.id,
            "round": task.round,
            "index": task.index,
            "site": task.site,
            "meta": task.meta,
            "judged": task.state == ACCEPTED,
        }
        self._send(*self._with_blob(message, task.result))

    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None:
        self._send({"event": "closed", "round": call.round, "index": call.index, **outcome})

    def _send(self, message: dict[str, Any], binary: bytes = b"") -> None:
        try:
            self._connection.send(message, binary)
        except OSError:
            log.debug("%s: its process is gone", self._job.id)  # the supervisor of the process acts on it

    def _described(self, blob: str) -> dict[str, Any]:
        inline = self._hub.blobs.inline(bytes.fromhex(blob))
        data = base64.b64encode(inline).decode() if inline is not None else None
        return {"blob": blob, "data": data, "file": None if inline is not None else str(self._path_of(blob))}

    def _path_of(self, blob: str) -> Path:
        return self._hub.blobs.path(bytes.fromhex(blob))

    def _with_blob(self, message: dict[str, Any], blob: bytes | None) -> tuple[dict[str, Any], bytes]:
        message["blob"] = blob.hex() if blob else None
        if blob is None:
            return message, b""
        inline = self._hub.blobs.inline(blob)
        if inline is None:
            message["file"] = str(self._hub.blobs.path(blob))
        return message, inline or b""

    # --- from the process

    def serve(self) -> None:
        hub, job = self._hub, self._job
        if not self._running.ready.wait(3600) or self._running.is_over():
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
            handler(message, binary)
            if self._running.is_over():
                return

    def _do_blob(self, message: Mapping[str, Any], binary: bytes) -> None:
        """A new blob from the process: a finished file of the spool folder, or the bytes."""
        blobs = self._hub.blobs
        staged = blobs.stage_file(Path(message["file"])) if message.get("file") else blobs.stage_bytes(binary)
        with self._hub.store.tx():
            blob = blobs.register(*staged, f"job:{self._job.id}:new")
        self._send({"blob": blob.hex(), "file": str(blobs.path(blob)) if staged[1] is None else None})

    def _do_spool(self, message: Mapping[str, Any], _: bytes) -> None:
        self._send({"file": str(self._hub.blobs.new_spool_file(int(message["size"])))})

    def _do_call(self, message: Mapping[str, Any], _: bytes) -> None:
        payload = bytes.fromhex(message["blob"]) if message.get("blob") else None
        targets = tuple(sorted(message["targets"])) if message.get("targets") is not None else None
        recorded = self._hub.store.call(self._job.id, message["round"], message["index"])
        if targets is None:  # everybody who takes part; after a restart: who took part then
            everybody = {*self._hub.jobs.taking_part_list(self._job.id), *self._hub.jobs.out(self._job.id)}
            targets = recorded.targets if recorded else tuple(sorted(everybody))
        meta = message["meta"]
        call = Call(
            job=self._job.id,
            round=message["round"],
            index=message["index"],
            name=message["name"],
            targets=targets,
            digest=digest(message["name"], targets, payload, meta),
            meta=meta,
            payload=payload,
            settings=message["settings"],
        )
        try:
            self._hub.board.open(call, self, self._hub.jobs.out(self._job.id))
        except NotDeterministicError as error:
            self._hub.jobs.end(self._job.id, "FAILED", f"the workflow is not deterministic: {error}")

    def _do_judge(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.board.judge(message["task"], bool(message["ok"]), str(message.get("why", "")))

    def _do_sites(self, message: Mapping[str, Any], _: bytes) -> None:
        """Who takes part, recorded like a call: a replay sees the same."""
        store, key = self._hub.store, (self._job.id, int(message["round"]), int(message["index"]))
        recorded = store.call(*key)
        sites = recorded.targets if recorded else tuple(self._hub.jobs.taking_part_list(self._job.id))
        if recorded is None:
            call = Call(*key, name="(sites)", targets=sites, digest="", meta={}, payload=None, settings={})
            with store.tx():
                store.open_call(call, [])
                store.close_call(call, {})
        self._send({"sites": list(sites)})

    def _do_commit(self, message: Mapping[str, Any], _: bytes) -> None:
        """A finished round: state, model, metrics in one transaction; what it consumed is released."""
        job, store, blobs = self._job.id, self._hub.store, self._hub.blobs
        round_ = int(message["round"])
        model = bytes.fromhex(message["model"]) if message.get("model") else None
        metrics = message["metrics"]
        with store.tx():
            if model is not None:
                blobs.add_ref(model, f"job:{job}:model:{round_}")
            blobs.drop_refs(f"job:{job}:state:")
            for key, blob in message["tensors"].items():
                blobs.add_ref(bytes.fromhex(blob), f"job:{job}:state:{key}")
            state = {"state": message["state"], "tensors": message["tensors"]}
            store.commit(Boundary(job, round_, state, model, metrics, time.time()))
            blobs.drop_refs(f"job:{job}:new")
            blobs.drop_refs(f"job:{job}:task:")
            blobs.drop_refs(f"job:{job}:call:")
            for old in range(max(0, round_ - 3), round_):
                blobs.drop_refs(f"job:{job}:model:{old}")
            store.add_event(job, {"event": "round", "round": round_, **metrics})
        self._send({"ok": True})
        self._running.progressed()
        blobs.collect()
        self._hub.changed()

    def _do_finish(self, message: Mapping[str, Any], _: bytes) -> None:
        self._send({"ok": True})
        self._hub.jobs.end(self._job.id, "FINISHED", "")

    def _do_fail(self, message: Mapping[str, Any], _: bytes) -> None:
        self._send({"ok": True})
        self._hub.jobs.end(self._job.id, "FAILED", str(message.get("why", "")))

    def _do_metric(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.store.add_metrics(self._job.id, "server", message["items"])

    def _do_event(self, message: Mapping[str, Any], _: bytes) -> None:
        self._hub.store.add_event(self._job.id, dict(message["document"]))
        self._hub.changed()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()
