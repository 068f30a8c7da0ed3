"""Filters and codecs on a site: between the job's process and the link, in processes of their own.

A result: the job's filters, then the site's own, then the codecs. Filtered content is in the spool and its digest in
the journal before a byte of it leaves; after a crash the same bytes are sent, so noise is drawn once for what leaves.
A task: decoded, then the job's filters, then the site's. If a filter fails, the task fails and nothing leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime.agent.chains import Chains
from fl_runtime.agent.journal import DONE, Journal, TaskRow
from fl_runtime.agent.shaped import ARRIVED, ENCODED, FILTERED, LATE, Shaped, Step
from fl_runtime.blobs import Staged
from fl_runtime.codecs.spec import chosen
from fl_runtime.errors import FlError
from fl_runtime.filters.workshop import describe
from fl_runtime.kit import Kit
from fl_runtime.models.meta import check_size
from fl_runtime.names import OWN_TASK, OWN_TASKS
from fl_runtime.patience import is_full
from fl_runtime.proto import fedspan_pb2 as pb

log = logging.getLogger("fedspan.agent")


@dataclass(frozen=True)
class Outgoing:
    """What leaves of a result. `error`: nothing but that."""

    blob: bytes | None
    answer: Mapping[str, Any]
    error: str = ""
    form: str = ""
    plain: bytes = b""
    base: bytes = b""


class Shaping:
    """All of it, for all jobs. Methods that take long are called on worker threads."""

    def __init__(self, journal: Journal, kit: Kit, state: Path, features: Callable[[], frozenset[str]]) -> None:
        self._journal = journal
        self._blobs = journal.blobs
        self._kit = kit
        self._features = features  # of the server, as its last Welcome told; empty before
        self._shaped = Shaped(journal)
        self._chains = Chains(journal, kit, state)

    # --- tasks of the runtime's own

    def refuses(self, name: str) -> str:
        """Why this site does not do such a task of the runtime's own; empty for all others, and where it does.

        The script's process could put anything into the answer, and no filter would see it.
        """
        if not name.startswith(OWN_TASK):
            return ""
        if name not in OWN_TASKS:
            return f"its runtime knows no task {name}"
        if self._chains.of_site("results"):
            return f"its local/policy.yml has filters for results, which can't be applied to {name}"
        return ""

    # --- results

    def ready(self, task: TaskRow) -> bool:
        """Everything that has to be done with a result is done and journalled."""
        if task.error or task.name.startswith(OWN_TASK):
            return True
        filtered = self._shaped.get(task.id, FILTERED)
        if filtered is None and self._chains.of(task.job, "results"):
            return False
        if filtered is not None and (filtered.document.get("error") or filtered.blob is None):
            return True
        return not self._codecs(task, filtered) or self._shaped.get(task.id, ENCODED) is not None

    def outgoing(self, task: TaskRow) -> Outgoing:
        """What leaves; `ready(task)` holds."""
        if task.name.startswith(OWN_TASK):
            why = task.error or self.refuses(task.name)  # the policy may have been edited meanwhile
            return Outgoing(None, {}, why) if why else Outgoing(task.result, task.answer)
        filtered = self._shaped.get(task.id, FILTERED)
        if filtered is not None and filtered.document.get("error"):
            return Outgoing(None, {}, filtered.document["error"])
        blob, answer = (filtered.blob, filtered.document["meta"]) if filtered else (task.result, task.answer)
        encoded = self._shaped.get(task.id, ENCODED)
        if encoded is None or encoded.blob is None or not self._codecs(task, filtered):
            return Outgoing(blob, answer, task.error)
        document = encoded.document
        if document["base"] and self._is_late(task):
            return Outgoing(blob, answer)
        return Outgoing(
            encoded.blob,
            answer,
            form=document["form"],
            plain=bytes.fromhex(document["plain"]),
            base=bytes.fromhex(document["base"]),
        )

    def late(self, task: TaskRow) -> None:
        """The result is late: the server keeps what it could be a difference to for a round only, so it is none."""
        self._shaped.put(task.job, task.id, LATE, None, {})

    def _is_late(self, task: TaskRow) -> bool:
        return self._shaped.get(task.id, LATE) is not None

    def holds(self, job: str) -> bytes:
        """The plain model that is kept here as a base for the next task."""
        kept = self._blobs.owned(f"job:{job}:base") if self._keeps(job) else []
        return kept[0] if kept else b""

    def shape(self, task: TaskRow) -> None:
        """Filter and encode a result that the job's process has left."""
        if self._shaped.get(task.id, FILTERED) is None and self._chains.of(task.job, "results"):
            self._filter_result(task)
        filtered = self._shaped.get(task.id, FILTERED)
        if filtered is not None and (filtered.document.get("error") or filtered.blob is None):
            return
        codecs = self._codecs(task, filtered)
        if codecs and self._shaped.get(task.id, ENCODED) is None:
            self._encode_result(task, filtered, codecs)

    def _encode_result(self, task: TaskRow, filtered: Step | None, codecs: list[dict[str, Any]]) -> None:
        """The wire form; a delta refers to the model that this task brought, which both sides keep until it is over."""
        blob, answer = (filtered.blob, filtered.document["meta"]) if filtered else (task.result, task.answer)
        assert blob is not None
        arrived = self._shaped.get(task.id, ARRIVED)
        base = arrived.blob if arrived is not None else task.payload
        document: dict[str, Any] = {"form": "", "plain": "", "base": ""}
        staged: list[Staged] = []
        try:
            with self._blobs.spooled(0) as target:
                reply = self._chains.shop(task.job, "site").ask(
                    {
                        "op": "encode",
                        "input": describe(self._blobs, blob),
                        "base": describe(self._blobs, base),
                        "base_id": base.hex() if base else "",
                        "is_diff": answer.get("params_type") == "DIFF",
                        "codecs": codecs,
                        "output": str(target),
                    }
                )
                if reply["form"]:
                    staged.append(self._blobs.stage_file(target))
                    plain = blob.hex() if reply["lossless"] else ""
                    document = {"form": reply["form"], "plain": plain, "base": reply["base"]}
        except (FlError, OSError) as error:
            log.warning("%s: the result of %s is sent in full: %s", task.job, task.id, error)
        with self._blobs.registering(*staged) as register:
            now = self._journal.task(task.id)
            if now is None or now.state != DONE:
                return
            wire = register(staged[0], f"job:{task.job}:task:{task.id}:encoded") if staged else None
            self._shaped.put(task.job, task.id, ENCODED, wire, document)

    # --- tasks

    def needs(self, task: pb.Task) -> bool:
        """The payload has to be decoded or filtered before the script gets it."""
        if task.name.startswith(OWN_TASK) or not task.payload.blob:
            return False
        return bool(task.payload.form) or bool(self._chains.of(task.job, "tasks")) or self._keeps(task.job)

    def _keeps(self, job: str) -> bool:
        """Models are kept as bases for the next task."""
        spec = self._chains.spec(job)
        codecs = spec.codecs if spec is not None else []
        return any(entry["type"] == "delta" and entry["on"] != "results" for entry in codecs)

    def arrive(self, task: TaskRow, payload: pb.Payload) -> TaskRow | None:
        """Decode and filter what came; None when the base is not here: the server is to send it in full.

        Raises:
            StorageError: the disk is full; it may be tried again.
            FlError: a filter failed; the task has failed, and the server may know why.
        """
        blobs, owner = self._blobs, f"job:{task.job}:task:{task.id}"
        blob = payload.blob
        staged: list[Staged] = []
        if payload.form:
            if payload.base and not blobs.has(payload.base):
                return None
            try:
                staged.append(self._decode(task, payload))
            except FlError as error:
                if is_full(error):
                    raise
                log.warning("%s: %s can't be decoded: %s", task.job, task.id, error)
                return None
            blob = staged[0][0].id
            if payload.plain and payload.plain != blob:
                log.warning("%s: %s decodes to something else than announced", task.job, task.id)
        with blobs.registering(*staged) as register:
            for decoded in staged:
                register(decoded, owner + ":plain")
            self._shaped.put(task.job, task.id, ARRIVED, blob, {})
            if self._keeps(task.job):
                blobs.drop_refs(f"job:{task.job}:base")
                blobs.add_ref(blob, f"job:{task.job}:base")
        meta, final = task.meta, blob
        made: list[Staged] = []
        if self._chains.of(task.job, "tasks"):
            made, left, meta = self._chains.run(task, "tasks", describe(blobs, blob), dict(task.meta), None)
            if not left:
                raise FlError("The filters left no model", participant=self._kit.name)
        with blobs.registering(*made) as register:
            for filtered in made:
                final = register(filtered, owner + ":payload")
            blobs.add_ref(final, owner + ":payload")
            self._journal.ready(task.id, final, meta)
        return self._journal.task(task.id)

    def _decode(self, task: TaskRow, payload: pb.Payload) -> Staged:
        blobs = self._blobs
        with blobs.spooled(payload.length) as target:
            self._chains.shop(task.job, "site").ask(
                {
                    "op": "decode",
                    "input": describe(blobs, payload.blob),
                    "base": describe(blobs, payload.base or None),
                    "base_id": payload.base.hex(),
                    "limit": 1 << 62,  # the server may send what it likes: it could send it plain, too
                    "output": str(target),
                }
            )
            return blobs.stage_file(target)

    def _filter_result(self, task: TaskRow) -> None:
        document: dict[str, Any] = {}
        staged: list[Staged] = []
        left = False
        try:
            content, meta = describe(self._blobs, task.result), dict(task.answer)
            releases = self._shaped.count(task.job, FILTERED) + 1
            staged, left, meta = self._chains.run(task, "results", content, meta, task.payload, releases)
            check_size(meta, "the result behind the filters")
            document["meta"] = meta
        except (FlError, OSError) as error:
            if is_full(error):
                raise
            log.error("%s: %s is not sent: %s", task.job, task.id, error)
            document = {"error": str(error) if isinstance(error, FlError) else f"the site can't store it: {error}"}
        with self._blobs.registering(*staged) as register:
            now = self._journal.task(task.id)
            if now is None or now.state != DONE:
                return  # nobody wants it any more
            blob = task.result if left else None
            for filtered in staged:
                blob = register(filtered, f"job:{task.job}:task:{task.id}:filtered")
            self._shaped.put(task.job, task.id, FILTERED, blob, document)

    def _codecs(self, task: TaskRow, filtered: Any) -> list[dict[str, Any]]:
        spec = self._chains.spec(task.job)
        if spec is None or (task.result if filtered is None else filtered.blob) is None:
            return []
        codecs = chosen(spec.codecs, "results", self._features())
        return [entry for entry in codecs if entry["type"] != "delta"] if self._is_late(task) else codecs

    def end(self, job: str) -> None:
        """The job is over: whatever runs for it ends."""
        self._chains.end(job)
        self._shaped.forget(job)

    def close(self) -> None:
        self._chains.close()
