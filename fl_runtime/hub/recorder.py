"""What a job's process has finished, made durable: rounds, the model of a workflow without rounds, its checkpoints."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fl_runtime.errors import RefusedError, StorageError
from fl_runtime.hub import checkpoints, replay
from fl_runtime.hub.sent import Plan
from fl_runtime.hub.state import Boundary

if TYPE_CHECKING:
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
Message = Mapping[str, Any]


class Recorder:
    """One launch of a job's process. Each method is one transaction; StorageError: nothing of it has happened."""

    def __init__(self, hub: Hub, running: Running) -> None:
        self._hub, self._running, self._job = hub, running, running.job.id

    def own(self, blob: str | None) -> bytes | None:
        """A blob of this job: knowing the id of another's grants nothing.

        Raises:
            RefusedError: it is not.
        """
        if not blob:
            return None
        found = bytes.fromhex(blob)
        if not any(owner.startswith(f"job:{self._job}:") for owner in self._hub.blobs.owners(found)):
            raise RefusedError("The workflow named a model that is not of this job", why=blob)
        return found

    def commit(self, message: Message) -> None:
        """A finished round: state, model, metrics; what it consumed is released."""
        job, store, blobs = self._job, self._hub.store, self._hub.blobs
        round_ = int(message["round"])
        model = self.own(message.get("model"))
        traffic = self._hub.wires.traffic.figures(job)
        metrics = {**message["metrics"], **traffic}
        with store.tx():
            if model is not None:
                blobs.add_ref(model, f"job:{job}:model:{round_}")
            tensors = {key: self.own(blob) for key, blob in message["tensors"].items()}
            blobs.drop_refs(f"job:{job}:state:")
            for key, owned in tensors.items():
                if owned is not None:
                    blobs.add_ref(owned, f"job:{job}:state:{key}")
            state = {"state": message["state"], "tensors": message["tensors"]}
            boundary = Boundary(job, round_, state, model, metrics, time.time())
            store.commit(boundary)
            blobs.drop_refs(f"job:{job}:new")
            self._drop_closed(round_)
            for old in range(max(0, round_ - 3), round_):
                blobs.drop_refs(f"job:{job}:model:{old}")
            store.add_event(job, {"event": "round", "round": round_, **metrics})
        self._hub.wires.traffic.told(job, traffic)
        self._hub.wires.committed(job)
        self._write_checkpoints(boundary)

    def _drop_closed(self, round_: int) -> None:
        """What calls have sent and got is released, but not of open ones: a controller may let one stand over a round.

        What a late result may be a difference to stays for one round more.
        """
        job, store, blobs = self._job, self._hub.store, self._hub.blobs
        kept = [f"job:{job}:call:{call.round}:{call.index}:" for call in store.open_calls(job)]
        kept += [f"job:{job}:task:{job}/{call.round}.{call.index}/" for call in store.open_calls(job)]
        if Plan.of(self._running.job).differences:
            index = 0
            while (call := store.call(job, round_, index)) is not None:
                if call.settings.get("late") == "use":
                    kept.append(f"job:{job}:call:{round_}:{index}:")
                index += 1
        for what in ("task", "call"):
            if not kept:
                blobs.drop_refs(f"job:{job}:{what}:")
                continue
            for owner in {owner for owner, _ in blobs.refs(f"job:{job}:{what}")}:
                if not f"{owner}:".startswith(tuple(kept)):
                    blobs.drop_refs(owner)

    def checkpoint(self, message: Message) -> None:
        """The model so far, of a workflow without rounds: kept whatever becomes of the job."""
        job, store, blobs = self._job, self._hub.store, self._hub.blobs
        model, best = self.own(message["model"]), message.get("best")
        with store.tx():
            for name, blob in (("model", model), ("best", self.own(best))):
                blobs.drop_refs(f"job:{job}:checkpoint:{name}")
                if blob is not None:
                    blobs.add_ref(blob, f"job:{job}:checkpoint:{name}")
            state = {"state": message.get("state") or {}, "tensors": {"best": best} if best else {}}
            boundary = Boundary(job, -1, state, model, message["metrics"], time.time())
            store.commit(boundary)
            store.add_event(job, {"event": "model", **message["metrics"]})
        self._write_checkpoints(boundary)

    def outgrown(self, message: Message) -> None:
        """The job is not to be replayed any more: what its closed calls hold is released."""
        job, store, blobs = self._job, self._hub.store, self._hub.blobs
        round_ = int(message["round"])
        with store.tx():
            replay.set_outgrown(store, job)
            for index in message["closed"]:
                blobs.drop_all(f"job:{job}:call:{round_}:{int(index)}")
                for task in store.tasks(job, round_, int(index)):
                    blobs.drop_all(f"job:{job}:task:{task.id}")
            blobs.drop_refs(f"job:{job}:new")

    def release(self) -> None:
        """Free what nothing refers to: the process that was told the paths is the one that has let go of it."""
        place, blobs = self._running.place, self._hub.blobs
        if place is not None:
            for name in place.shown():  # links that the job has: the space would not be free
                if not blobs.owners(bytes.fromhex(name)):
                    place.hide(name)
        with contextlib.suppress(StorageError):  # the next one collects it
            blobs.collect(0.0)

    def _write_checkpoints(self, boundary: Boundary) -> None:
        folder = self._running.folder / "checkpoints"
        about = {"job": self._job, "round": boundary.round, **boundary.metrics}
        best, known = boundary.state["tensors"].get("best"), boundary.state["state"].get("best")
        try:
            if boundary.model is not None:
                checkpoints.write(folder, "last", self._hub.blobs, boundary.model, about, boundary.at)
            if best is not None:
                said = {"job": self._job, **(known if isinstance(known, dict) else {})}
                checkpoints.write(folder, "best", self._hub.blobs, bytes.fromhex(best), said, boundary.at)
        except OSError as error:
            log.warning("%s: its checkpoint can't be written: %s", self._job, error)
