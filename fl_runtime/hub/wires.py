"""Filters and codecs on the server: what sites are sent, and what their results are once they are decoded.

Encoded payloads belong to their call and are read under its grant. A delta names its base: the hub keeps what a site
says that it holds, and takes as a result's base only what that call has sent. Without a base, or for an older site,
the plain model is sent. What was filtered or encoded is a reference in the store (hub/sent.py), so a restarted server
sends the same as before.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fl_runtime.blobs import Staged
from fl_runtime.codecs.spec import CODECS, ZSTD, chosen
from fl_runtime.errors import FlError, ProtocolError
from fl_runtime.filters.workshop import describe
from fl_runtime.hub.sent import Peer, Plan, Sent
from fl_runtime.hub.state import OPEN, Call, Job, Task
from fl_runtime.hub.traffic import Traffic
from fl_runtime.hub.workshops import Workshops
from fl_runtime.names import OWN_TASK
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
_VARIANTS = 4  # encodings of one payload, for sites that hold different bases
_ROOM = 64 * 1024 * 1024  # bytes that a result may have beyond four times its task's model
_IDLE = Plan((), (), ())


class Wires:
    """Methods may be called from any thread; `prepare` and `plain` take long."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.traffic = Traffic()
        self.shops = Workshops(hub)
        self._sent = Sent(hub.blobs)
        self._lock = threading.Lock()  # of what follows; never held while the store is asked
        self._plans: dict[str, Plan] = {}
        self._in_full: set[str] = set()  # tasks whose sites could not decode what they were sent

    @staticmethod
    def concerned(job: Job) -> bool:
        """The job uses codecs, or filters on the server."""
        return not Plan.of(job).idle

    def _plan(self, job_id: str) -> Plan:
        with self._lock:
            known = self._plans.get(job_id)
        if known is not None:
            return known
        job = self._hub.store.job(job_id)
        if job is None:
            return _IDLE
        with self._lock:
            return self._plans.setdefault(job_id, Plan.of(job))

    # --- tasks

    def prepare(self, job: Job, call: Call) -> None:
        """Filter and encode a call's payload before it is opened.

        Raises:
            FlError: a filter of the server failed, or left no model.
        """
        plan = Plan.of(job)
        if call.payload is None or call.name.startswith(OWN_TASK) or plan.idle:
            return
        content = self._sent.content(call, plan)
        if content is None:  # filters draw once, also over a restart
            content = self._filter_task(call, plan)
        for peer in sorted({self._peer(call, plan, site) for site in call.targets})[:_VARIANTS]:
            codecs = chosen(plan.codecs, "tasks", frozenset({CODECS, ZSTD} if peer[1] else {CODECS}))
            if codecs and peer not in self._sent.variants(call):
                self._encode(call, plan, content, codecs, peer)

    def _peer(self, call: Call, plan: Plan, site: str) -> Peer:
        session = self._hub.sessions.get(site)
        held = self._hub.blobs.owned(_base_owner(call.job, site)) if plan.bases else []
        return held[0] if held else b"", session is None or ZSTD in session.features

    def _filter_task(self, call: Call, plan: Plan) -> bytes:
        blobs, owner = self._hub.blobs, self._sent.owner(call, "filtered")
        assert call.payload is not None
        request = {"op": "filter", "input": describe(blobs, call.payload), "meta": call.meta, "filters": plan.tasks}
        with blobs.spooled(0) as target:
            reply = self.shops.of(call.job).ask({**request, "output": str(target), "task": call.name, "site": "server"})
            if reply["tensors"] == "none":
                raise FlError("The server's filters for tasks left no model", participant=call.job)
            staged = [blobs.stage_file(target)] if reply["tensors"] == "written" else []
        with self.shops.registering(call.job, *staged) as register:
            if staged:
                return register(staged[0], owner)
            blobs.add_ref(call.payload, owner)
            return call.payload

    def _encode(self, call: Call, plan: Plan, content: bytes, codecs: list[dict[str, Any]], peer: Peer) -> None:
        """Make the variant for these sites; without one they are sent the plain model."""
        blobs, name, base = self._hub.blobs, self._sent.name(peer), peer[0]
        request = {"op": "encode", "input": describe(blobs, content), "codecs": codecs, "base_id": base.hex()}
        try:
            with blobs.spooled(0) as target:
                request |= {"base": describe(blobs, base or None), "output": str(target)}
                reply = self.shops.of(call.job).ask(request)
                if not reply["form"]:
                    return
                staged = blobs.stage_file(target)
            with self.shops.registering(call.job, staged) as register:
                wire = register(staged, self._sent.owner(call, "wire", name))
            plain = content if reply["lossless"] else b""
            if not plain and any(entry["type"] == "delta" for entry in plan.codecs):
                seen = self._decode(call.job, wire, bytes.fromhex(reply["base"]), 1 << 62)
                with self.shops.registering(call.job, seen) as register:  # what the sites see is what deltas refer to
                    plain = register(seen, self._sent.owner(call, "seen", wire.hex()))
        except FlError as error:
            log.warning("%s: round %s is sent in full: %s", call.job, call.round, error)
            return
        about = {"wire": wire.hex(), "form": reply["form"], "plain": plain.hex(), "base": reply["base"]}
        with self.shops.registering(call.job):
            blobs.put(json.dumps(about).encode(), self._sent.owner(call, "about", name))

    def payload(self, call: Call, site: str) -> pb.Payload | None:
        """What the site is sent; None: there is no model, or it has not been filtered yet."""
        blobs, plan = self._hub.blobs, self._plan(call.job)
        plain = self._sent.content(call, plan)
        if plain is None:
            return None
        session = self._hub.sessions.get(site)
        variants = self._sent.variants(call) if plan.codecs else {}
        variant = variants.get(self._peer(call, plan, site)) if variants else None
        with self._lock:
            in_full = f"{call.job}/{call.round}.{call.index}/{site}" in self._in_full
        if session is None or CODECS not in session.features or in_full:
            variant = None
        blob = variant.blob if variant else plain
        manifest, whole = blobs.manifest(blob), blobs.manifest(plain)
        if manifest is None or whole is None:
            return None
        if variants:
            self.traffic.count(call.job, "tasks", whole.length, manifest.length)
        out = pb.Payload(blob=blob, length=manifest.length, inline=blobs.inline(blob) or b"")
        if variant is not None:
            out.form, out.plain, out.base = variant.form, variant.plain, variant.base
        return out

    def in_full(self, site: str, task_id: str) -> None:
        """The site could not decode what it was sent: until it says otherwise it holds nothing."""
        task = self._hub.store.task(task_id)
        if task is None or task.site != site or task.state != OPEN:
            return
        self._hub.blobs.drop_refs(_base_owner(task.job, site))
        with self._lock:
            self._in_full.add(task.id)

    def readable(self, call: Call) -> set[bytes]:
        """Blobs of its payload that may be read under this call's grant; what the server's filters hide is not."""
        return self._sent.readable(call, self._plan(call.job))

    # --- results

    def noted(self, task: Task, result: pb.TaskResult, meta: dict[str, Any]) -> dict[str, Any]:
        """A result's plain part with what has to be known to decode it; and what the site holds now.

        Raises:
            ProtocolError: it is a difference, came late, and what it refers to is gone.
        """
        meta = {key: value for key, value in meta.items() if key != "wire"}
        call = self._hub.store.call(task.job, task.round, task.index)
        if call is None:
            return meta
        if result.holds:
            self._hold(task, call, bytes(result.holds))
        if result.HasField("payload") and result.payload.form:
            base = bytes(result.payload.base)
            known = self._models(call) | set(self._hub.board.late.sent(task))
            if base and call.state != "open" and base not in known:
                raise ProtocolError("The result came late, and the model that it refers to is gone")
            meta["wire"] = {"plain": result.payload.plain.hex(), "base": base.hex()}
        return meta

    def bases(self, call: Call) -> set[bytes]:
        """What results of the call may be differences to."""
        return self._models(call) if self._plan(call.job).differences else set()

    def _models(self, call: Call) -> set[bytes]:
        """The plain models that sites may have of this call, as far as they are still here."""
        return {blob for blob in self._sent.models(call, self._plan(call.job)) if self._hub.blobs.has(blob)}

    def _hold(self, task: Task, call: Call, blob: bytes) -> None:
        if not self._plan(task.job).bases:
            return
        with self._hub.store.tx():
            if blob in self._models(call):
                self._hub.blobs.drop_refs(_base_owner(task.job, task.site))
                self._hub.blobs.add_ref(blob, _base_owner(task.job, task.site))

    def plain(self, job: Job, task: Task) -> tuple[bytes | None, dict[str, Any]]:
        """A result decoded and filtered: (blob, meta); done once.

        Raises:
            FlError: it can't be decoded, or a filter failed: the result does not count.
        """
        blobs, owner, filters = self._hub.blobs, f"job:{task.job}:task:{task.id}:plain", Plan.of(job).results
        meta = {key: value for key, value in task.meta.items() if key != "wire"}
        told = task.meta.get("wire")
        if task.result is None or not (told or filters):
            return task.result, meta
        call = self._hub.store.call(task.job, task.round, task.index)
        done = next(iter(blobs.owned(owner)), None)
        if changed := blobs.owned(owner + "-meta"):  # what was left of the model, if anything, came with it
            return done, json.loads(blobs.read(changed[0]))
        if done is not None and not filters:
            return done, meta
        blob = task.result
        if told:
            blob = self._decode_result(task, call, told, owner if not filters else owner + "-decoded")
        if filters:
            return self._filter_result(task, call, blob, meta, owner)
        return blob, meta

    def _decode_result(self, task: Task, call: Call | None, told: Mapping[str, str], owner: str) -> bytes:
        blobs = self._hub.blobs
        assert task.result is not None
        base = bytes.fromhex(told["base"])
        known = self._models(call) if base and call is not None else set()
        if base and base not in known and base not in blobs.owned(f"job:{task.job}:task:{task.id}:base"):
            raise ProtocolError("The result is a difference to a model that was not sent", why=base.hex()[:16])
        sent = blobs.manifest(call.payload) if call is not None and call.payload else None
        wire = blobs.manifest(task.result)
        length = wire.length if wire is not None else 0
        limit = (4 * sent.length if sent is not None else 200 * length) + _ROOM
        staged = self._decode(task.job, task.result, base, limit)
        with self.shops.registering(task.job, staged) as register:
            if told["plain"] and told["plain"] != staged[0].id.hex():
                raise ProtocolError("The decoded result is not what its sender named")
            blob = register(staged, owner)
        self.traffic.count(task.job, "results", staged[0].length, length)
        return blob

    def _filter_result(
        self, task: Task, call: Call | None, blob: bytes, meta: dict[str, Any], owner: str
    ) -> tuple[bytes | None, dict[str, Any]]:
        """What the server's filters leave of a result; None: no model."""
        blobs, filters = self._hub.blobs, self._plan(task.job).results
        base = describe(blobs, call.payload if call is not None else None)
        request = {"op": "filter", "input": describe(blobs, blob), "base": base, "meta": meta, "filters": filters}
        with blobs.spooled(0) as target:
            reply = self.shops.of(task.job).ask({**request, "output": str(target), "task": "", "site": task.site})
            text = blobs.stage_bytes(json.dumps(reply["meta"]).encode())
            try:
                staged = [blobs.stage_file(target)] if reply["tensors"] == "written" else []
            except BaseException:
                blobs.discard(*text)
                raise
        with self.shops.registering(task.job, text, *staged) as register:
            left = register(staged[0], owner) if staged else blob if reply["tensors"] == "same" else None
            if not staged and left is not None:
                blobs.add_ref(left, owner)
            register(text, owner + "-meta")
        return left, reply["meta"]

    def _decode(self, job: str, wire: bytes, base: bytes, limit: int) -> Staged:
        blobs = self._hub.blobs
        with blobs.spooled(0) as target:
            request: Mapping[str, Any] = {
                "op": "decode",
                "input": describe(blobs, wire),
                "base": describe(blobs, base or None),
                "base_id": base.hex(),
                "limit": limit,
                "output": str(target),
            }
            self.shops.of(job).ask(request)
            return blobs.stage_file(target)

    # --- the end

    def committed(self, job: str) -> None:
        """A round is over: what is known of tasks that are over is forgotten."""
        with self._lock:
            marked = [task for task in self._in_full if task.startswith(f"{job}/")]
        tasks = [self._hub.store.task(task) for task in marked]
        with self._lock:
            self._in_full -= {task.id for task in tasks if task is not None and task.state != OPEN}

    def end(self, job: str) -> None:
        with self._lock:
            self._plans.pop(job, None)
            self._in_full = {task for task in self._in_full if not task.startswith(f"{job}/")}
        self.traffic.end(job)
        self.shops.end(job)


def _base_owner(job: str, site: str) -> str:
    """Of the model that a site says it holds."""
    return f"job:{job}:base:{site}"
