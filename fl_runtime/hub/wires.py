"""Filters and codecs on the server: what sites are sent, and what their results are once they are decoded.

Encoded payloads belong to their call and are read under its grant. A delta names its base: the hub keeps what a site
says that it holds, and takes as a result's base only what that call has sent. Without a base, or for an older site,
the plain model is sent.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fl_runtime.codecs.spec import CODECS, ZSTD, chosen
from fl_runtime.errors import FlError, ProtocolError
from fl_runtime.filters.workshop import Workshop, describe
from fl_runtime.hub.state import Call, Job, Task
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
OWN = "fedspan."  # tasks of the runtime itself: their bits are not touched
_VARIANTS = 4  # encodings of one payload, for sites that hold different bases
_ROOM = 64 * 1024 * 1024  # bytes that a result may have beyond four times its task's model
_Key = tuple[str, int, int]


@dataclass(frozen=True)
class Variant:
    """One encoding of a call's payload; `plain` is what the site has after decoding it, if the hub knows."""

    blob: bytes
    form: str
    plain: bytes
    base: bytes


class Wires:
    """Methods may be called from any thread; `prepare` and `plain` take long."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._shops: dict[str, Workshop] = {}
        self._variants: dict[_Key, dict[tuple[bytes, bool], Variant]] = {}
        self._filtered: dict[_Key, bytes] = {}
        self._holds: dict[tuple[str, str], bytes] = {}
        self._in_full: set[tuple[str, str]] = set()  # sites that could not decode what this round has sent
        self._bytes: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def concerned(job: Job) -> bool:
        """The job uses codecs, or filters on the server."""
        return bool(job.spec.get("codecs") or (job.spec.get("filters") or {}).get("server"))

    def _shop(self, job: str) -> Workshop:
        with self._lock:
            return self._shops.setdefault(job, Workshop(job))

    # --- tasks

    def prepare(self, job: Job, call: Call) -> None:
        """Filter and encode a call's payload before it is opened.

        Raises:
            FlError: a filter of the server failed.
        """
        if call.payload is None or call.name.startswith(OWN) or not self.concerned(job):
            return
        key = (call.job, call.round, call.index)
        filters = (job.spec.get("filters") or {}).get("server", {}).get("tasks", [])
        if filters and key not in self._filtered:
            self._filtered[key] = self._filter_task(call, filters)
        for base, with_zstd in sorted({self._key(call, site) for site in call.targets})[:_VARIANTS]:
            if (base, with_zstd) in self._variants.get(key, {}):
                continue
            peer = {CODECS, ZSTD} if with_zstd else {CODECS}
            codecs = chosen(job.spec.get("codecs") or [], "tasks", frozenset(peer))
            if not codecs:
                continue
            made = self._encode(job, call, codecs, base)
            if made is not None:
                self._variants.setdefault(key, {})[base, with_zstd] = made

    def _key(self, call: Call, site: str) -> tuple[bytes, bool]:
        session = self._hub.sessions.get(site)
        held = self._holds.get((call.job, site), b"")
        return held if self._hub.blobs.has(held) else b"", session is None or ZSTD in session.features

    def _owner(self, call: Call, what: str) -> str:
        return f"job:{call.job}:call:{call.round}:{call.index}:{what}"

    def _filter_task(self, call: Call, filters: list[dict[str, Any]]) -> bytes:
        blobs, owner = self._hub.blobs, self._owner(call, "filtered")
        known = blobs.owned(owner)
        if known:
            return known[0]  # drawn once, also over a restart
        target = blobs.new_spool_file(0)
        request = {"op": "filter", "input": describe(blobs, call.payload), "meta": call.meta, "filters": filters}
        reply = self._shop(call.job).ask({**request, "output": str(target), "task": call.name, "site": "server"})
        if reply["tensors"] != "written":
            blobs.recycle(target)
            return call.payload or b""
        staged = blobs.stage_file(target)
        with self._hub.store.tx():
            return blobs.register(*staged, owner)

    def _encode(self, job: Job, call: Call, codecs: list[dict[str, Any]], base: bytes) -> Variant | None:
        blobs = self._hub.blobs
        content = self._filtered.get((call.job, call.round, call.index), call.payload)
        assert content is not None
        target = blobs.new_spool_file(0)
        request = {"op": "encode", "input": describe(blobs, content), "codecs": codecs, "output": str(target)}
        try:
            reply = self._shop(call.job).ask({**request, "base": describe(blobs, base or None), "base_id": base.hex()})
            if not reply["form"]:
                blobs.recycle(target)
                return None
            staged = blobs.stage_file(target)
        except FlError as error:
            log.warning("%s: round %s is sent in full: %s", call.job, call.round, error)
            blobs.recycle(target)
            return None
        with self._hub.store.tx():
            wire = blobs.register(*staged, self._owner(call, f"wire:{base.hex()}"))
        used = bytes.fromhex(reply["base"])
        plain = content if reply["lossless"] else b""
        everything = job.spec.get("codecs") or []
        if not plain and any(entry["type"] == "delta" for entry in everything):
            plain = self._seen(call, wire, used)  # what the sites see is what deltas refer to
        return Variant(wire, reply["form"], plain, used)

    def _seen(self, call: Call, wire: bytes, base: bytes) -> bytes:
        blobs = self._hub.blobs
        staged = blobs.stage_file(self._decode(call.job, wire, base, 1 << 62))
        with self._hub.store.tx():
            return blobs.register(*staged, self._owner(call, f"seen:{wire.hex()}"))

    def payload(self, call: Call, site: str) -> pb.Payload | None:
        """What the site is sent."""
        blobs, key = self._hub.blobs, (call.job, call.round, call.index)
        session = self._hub.sessions.get(site)
        plain = self._filtered.get(key, call.payload)
        if plain is None:
            return None
        variant = self._variants.get(key, {}).get(self._key(call, site))
        if session is None or CODECS not in session.features or (call.job, site) in self._in_full:
            variant = None
        blob = variant.blob if variant else plain
        manifest, whole = blobs.manifest(blob), blobs.manifest(plain)
        if manifest is None or whole is None:
            return None
        if self._variants.get(key):
            self._count(call.job, "tasks", whole.length, manifest.length)
        out = pb.Payload(blob=blob, length=manifest.length, inline=blobs.inline(blob) or b"")
        if variant is not None:
            out.form, out.plain, out.base = variant.form, variant.plain, variant.base
        return out

    def in_full(self, job: str, site: str) -> None:
        """The site lacks the base of what it was sent: until it says otherwise it holds nothing."""
        self._holds.pop((job, site), None)
        self._in_full.add((job, site))

    def readable(self, call: Call) -> set[bytes]:
        """Blobs that may be read under this call's grant."""
        key = (call.job, call.round, call.index)
        found = {variant.blob for variant in self._variants.get(key, {}).values()}
        return found | ({self._filtered[key]} if key in self._filtered else set())

    # --- results

    def noted(self, task: Task, result: pb.TaskResult, meta: dict[str, Any]) -> dict[str, Any]:
        """A result's plain part with what has to be known to decode it; and what the site holds now."""
        meta = {key: value for key, value in meta.items() if key != "wire"}
        if result.holds:
            self._hold(task, bytes(result.holds))
        if result.HasField("payload") and result.payload.form:
            meta["wire"] = {"plain": result.payload.plain.hex(), "base": result.payload.base.hex()}
        return meta

    def _hold(self, task: Task, blob: bytes) -> None:
        call = self._hub.store.call(task.job, task.round, task.index)
        job = self._hub.store.job(task.job)
        if call is None or job is None or blob not in self._sent(call):
            return
        if not any(entry["type"] == "delta" and entry["on"] != "results" for entry in job.spec.get("codecs") or []):
            return
        owner = f"job:{task.job}:base:{task.site}"
        with self._hub.store.tx():
            self._hub.blobs.drop_refs(owner)
            self._hub.blobs.add_ref(blob, owner)
        self._holds[task.job, task.site] = blob

    def _sent(self, call: Call) -> set[bytes]:
        """The plain models that sites have of this call."""
        key = (call.job, call.round, call.index)
        found = {variant.plain for variant in self._variants.get(key, {}).values() if variant.plain}
        found.add(self._filtered.get(key, call.payload or b""))
        return found - {b""}

    def plain(self, job: Job, task: Task) -> tuple[bytes | None, dict[str, Any]]:
        """A result decoded and filtered: (blob, meta); done once.

        Raises:
            FlError: it can't be decoded, or a filter failed: the result does not count.
        """
        blobs, owner = self._hub.blobs, f"job:{task.job}:task:{task.id}:plain"
        meta = {key: value for key, value in task.meta.items() if key != "wire"}
        told = task.meta.get("wire")
        filters = (job.spec.get("filters") or {}).get("server", {}).get("results", [])
        if task.result is None or not (told or filters):
            return task.result, meta
        call = self._hub.store.call(task.job, task.round, task.index)
        done = blobs.owned(owner)
        changed = blobs.owned(owner + "-meta")
        if done and (changed or not filters):
            return done[0], json.loads(blobs.read(changed[0])) if changed else meta
        blob, owned = task.result, []
        if told:
            base = bytes.fromhex(told["base"])
            if base and (call is None or base not in self._sent(call)):
                raise ProtocolError("The result is a difference to a model that was not sent", why=base.hex()[:16])
            sent = blobs.manifest(call.payload) if call is not None and call.payload else None
            wire = blobs.manifest(blob)
            length = wire.length if wire is not None else 0
            limit = (4 * sent.length if sent is not None else 200 * length) + _ROOM
            owned.append(blobs.stage_file(self._decode(task.job, blob, base, limit)))
            blob = owned[0][0].id
            if told["plain"] and told["plain"] != blob.hex():
                raise ProtocolError("The decoded result is not what its sender named")
            self._count(task.job, "results", owned[0][0].length, length)
        with self._hub.store.tx():
            for staged in owned:
                blobs.register(*staged, owner if not filters else owner + "-decoded")
        if filters:
            blob, meta = self._filter_result(task, call, blob, meta, filters, owner)
        return blob, meta

    def _filter_result(
        self,
        task: Task,
        call: Call | None,
        blob: bytes,
        meta: dict[str, Any],
        filters: list[dict[str, Any]],
        owner: str,
    ) -> tuple[bytes, dict[str, Any]]:
        blobs = self._hub.blobs
        target = blobs.new_spool_file(0)
        base = describe(blobs, call.payload if call is not None else None)
        request = {"op": "filter", "input": describe(blobs, blob), "base": base, "meta": meta, "filters": filters}
        reply = self._shop(task.job).ask({**request, "output": str(target), "task": "", "site": task.site})
        staged = None
        if reply["tensors"] == "written":
            staged = blobs.stage_file(target)
        else:
            blobs.recycle(target)
        text = blobs.stage_bytes(json.dumps(reply["meta"]).encode())
        with self._hub.store.tx():
            if staged is not None:
                blob = blobs.register(*staged, owner)
            else:
                blobs.add_ref(blob, owner)
            blobs.register(*text, owner + "-meta")
        return blob, reply["meta"]

    def _decode(self, job: str, wire: bytes, base: bytes, limit: int) -> Any:
        blobs = self._hub.blobs
        target = blobs.new_spool_file(0)
        request: Mapping[str, Any] = {
            "op": "decode",
            "input": describe(blobs, wire),
            "base": describe(blobs, base or None),
            "base_id": base.hex(),
            "limit": limit,
            "output": str(target),
        }
        try:
            self._shop(job).ask(request)
        except FlError:
            blobs.recycle(target)
            raise
        return target

    # --- figures, and the end

    def _count(self, job: str, way: str, plain: int, wire: int) -> None:
        with self._lock:
            sums = self._bytes.setdefault(job, {})
            for key, value in ((f"{way}_plain", plain), (f"{way}_sent", wire)):
                sums[key] = sums.get(key, 0) + value

    def figures(self, job: str) -> dict[str, Any]:
        """Bytes since the last round's end, for its history; empty when nothing was encoded."""
        with self._lock:
            sums = self._bytes.pop(job, {})
        out: dict[str, Any] = {}
        for way in ("tasks", "results"):
            plain, sent = sums.get(f"{way}_plain", 0), sums.get(f"{way}_sent", 0)
            if plain:
                out[way] = {"plain": plain, "sent": sent, "ratio": round(sent / plain, 4)}
        return {"wire": out} if out else {}

    def forget_calls(self, job: str) -> None:
        """A round is committed: its calls are over."""
        self._variants = {key: value for key, value in self._variants.items() if key[0] != job}
        self._filtered = {key: value for key, value in self._filtered.items() if key[0] != job}
        self._in_full = {key for key in self._in_full if key[0] != job}

    def end(self, job: str) -> None:
        with self._lock:
            shop = self._shops.pop(job, None)
        if shop is not None:
            shop.close()
        self.forget_calls(job)
        for key in [key for key in self._holds if key[0] == job]:
            del self._holds[key]
