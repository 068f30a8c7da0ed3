"""What sites are sent in a call where filters or codecs are in use, as the store knows it: a restart changes nothing.

All of it are references to blobs below the call's own one (`job:JOB:call:ROUND:INDEX`), so it goes with the call:

    …:filtered          the model after the server's filters; the model itself where they left it as it was
    …:wire:BASE:ZSTD    an encoding of that, for sites that hold BASE (hex, or nothing) and know zstd (1) or not (0)
    …:seen:WIRE         what sites have after they decoded it, where that is another model
    …:about:BASE:ZSTD   plain data on the encoding; written last, so without it there is none
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_runtime.blobs import BlobStore
from fl_runtime.hub.state import Call, Job
from fl_runtime.names import OWN_TASK

Peer = tuple[bytes, bool]  # the base that a site holds (b"" = none), and whether it knows zstd


@dataclass(frozen=True)
class Plan:
    """What a job says of filters and codecs on the way out and back."""

    codecs: Sequence[Mapping[str, Any]]
    tasks: Sequence[Mapping[str, Any]]  # filters of the server
    results: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, job: Job) -> Plan:
        server = (job.spec.get("filters") or {}).get("server") or {}
        return cls(job.spec.get("codecs") or [], server.get("tasks") or [], server.get("results") or [])

    @property
    def idle(self) -> bool:
        """Neither codecs nor filters of the server are in use."""
        return not (self.codecs or self.tasks or self.results)

    @property
    def bases(self) -> bool:
        """Models are kept on both sides, as bases of the next task."""
        return any(entry["type"] == "delta" and entry["on"] != "results" for entry in self.codecs)

    @property
    def differences(self) -> bool:
        """Results may be differences to the models that were sent."""
        return any(entry["type"] == "delta" and entry["on"] != "tasks" for entry in self.codecs)


@dataclass(frozen=True)
class Variant:
    """One encoding of a call's payload; `plain` is what the site has after decoding it, if the server knows."""

    blob: bytes
    form: str
    plain: bytes
    base: bytes


class Sent:
    """Reads the references; who makes them is `Wires`. Every method may be called from any thread."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    @staticmethod
    def owner(call: Call, *what: str) -> str:
        return ":".join((f"job:{call.job}:call:{call.round}:{call.index}", *what))

    @staticmethod
    def name(peer: Peer) -> str:
        return f"{peer[0].hex()}:{int(peer[1])}"

    def content(self, call: Call, plan: Plan) -> bytes | None:
        """The plain model for the sites; None: there is none, or the server's filters have not looked at it yet."""
        if call.payload is None or call.name.startswith(OWN_TASK) or not plan.tasks:
            return call.payload
        filtered = self._blobs.owned(self.owner(call, "filtered"))
        return filtered[0] if filtered else None

    def variants(self, call: Call) -> dict[Peer, Variant]:
        """The encodings that there are."""
        found = {}
        above = self.owner(call, "about")
        for owner, blob in self._blobs.refs(above):
            base, with_zstd = owner.removeprefix(above + ":").split(":")
            text = self._blobs.inline(blob)
            if text is None:  # the call ends just now
                continue
            about = json.loads(text)
            found[bytes.fromhex(base), with_zstd == "1"] = Variant(
                bytes.fromhex(about["wire"]), about["form"], bytes.fromhex(about["plain"]), bytes.fromhex(about["base"])
            )
        return found

    def readable(self, call: Call, plan: Plan) -> set[bytes]:
        """Blobs of its payload that may be read under this call's grant."""
        wires = {blob for _, blob in self._blobs.refs(self.owner(call, "wire"))}
        return wires | ({self.content(call, plan) or b""} - {b""})

    def models(self, call: Call, plan: Plan) -> set[bytes]:
        """The plain models that sites may have of this call."""
        seen = {blob for _, blob in self._blobs.refs(self.owner(call, "seen"))}
        return seen | ({self.content(call, plan) or b""} - {b""})
