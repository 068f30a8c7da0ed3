"""Results that come after their round has closed, where the job says `late: use`.

The newest one of each site is kept. It stands in for the site in the first later call of the same name that would close
without a fresh answer from it, so each result counts once at most; a fresh answer makes an older late one void. What a
site was sent in rounds that it missed is kept for a while: its answer may be a difference to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from fl_runtime.blobs import BlobStore
from fl_runtime.hub.state import DROPPED, RUNNING, Call, Late, StateStore, Task

_DROPPED_SHOWN = 16  # closed tasks that a returning site is told of: it can't hold more that it has not begun


class LateResults:
    """Every method may be called within a transaction of the board."""

    def __init__(self, store: StateStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        # where codecs come in (hub/wires.py): what answers to a call may be differences to
        self.bases: Callable[[Call], Collection[bytes]] = lambda _: ()

    @staticmethod
    def owner(job: str, site: str) -> str:
        return f"job:{job}:late:{site}"

    def missed(self, call: Call) -> None:
        """A call is closed. Of several that a site missed the models of two are kept: the first, whose answer may be on
        its way while the script is at the next one already, and the newest, which it is at after having been away.
        """
        if call.settings.get("late") != "use" or not (bases := self.bases(call)):
            return
        for task in self._store.tasks(call.job, call.round, call.index):
            if task.state == DROPPED or "late_round" in task.meta:
                for owner in self._kept(task.job, task.site)[1:]:
                    self._blobs.drop_refs(owner)
                for blob in bases:
                    self._blobs.add_ref(blob, _sent(task))

    def sent(self, task: Task) -> list[bytes]:
        """What is kept of what the site was sent with a task whose call is closed."""
        return self._blobs.owned(_sent(task))

    def _kept(self, job: str, site: str) -> list[str]:
        """Who refers to what the site was sent with tasks that it has not answered, oldest first."""
        refs = self._blobs.refs(f"{self.owner(job, site)}:sent")
        return sorted({owner for owner, _ in refs}, key=_number)

    def _answered(self, task: Task) -> None:
        """A site answers in order: to this task, and to none before it."""
        for owner in self._kept(task.job, task.site):
            if _number(owner) <= (task.round, task.index):
                self._blobs.drop_refs(owner)

    def wanted(self, task: Task) -> bool:
        """Whether an answer to this task, whose call is closed, would be kept."""
        call = self._store.call(task.job, task.round, task.index)
        if call is None or call.state == "open" or call.settings.get("late") != "use":
            return False
        if task.state != DROPPED and "late_round" not in task.meta:
            return False
        job = self._store.job(task.job)
        if job is None or job.state != RUNNING:
            return False
        known = self._store.late(task.job, task.site)
        return known is None or (task.round, task.index) > (known.round, known.index)

    def bank(self, task: Task, meta: Mapping[str, Any], blob: bytes | None, refer: Callable[[str], None]) -> None:
        """Keep a late answer in place of the site's older one, and the model that it is a difference to.

        Args:
            refer: makes an owner refer to the answer's content, if it has any.
        """
        call = self._store.call(task.job, task.round, task.index)
        assert call is not None
        owner = self.owner(task.job, task.site)
        with self._store.tx():
            self._drop(owner)
            self._answered(task)
            refer(owner)
            if (base := _base(meta)) is not None:
                self._blobs.add_ref(base, f"{owner}:base")
            self._store.bank(Late(task.job, task.site, task.id, task.round, task.index, call.name, dict(meta), blob))
            self._store.add_event(task.job, {"event": "late", "site": task.site, "round": task.round})

    def of(self, call: Call, site: str) -> Late | None:
        """What may stand in for a site in a call."""
        if call.settings.get("late") != "use":
            return None
        late = self._store.late(call.job, site)
        if late is None or late.used or late.name != call.name or (late.round, late.index) >= (call.round, call.index):
            return None
        return late

    def stand_in(self, task: Task, late: Late) -> Task | None:
        """The late result becomes the answer to an open task; it is still to be judged like any other."""
        with self._store.tx():
            if late.result is not None:
                self._blobs.add_ref(late.result, f"job:{task.job}:task:{task.id}")
            if (base := _base(late.meta)) is not None:
                self._blobs.add_ref(base, f"job:{task.job}:task:{task.id}:base")
            self._store.answer(task.id, {**late.meta, "late_round": late.round}, late.result)
            self._void(late)
            self._store.add_event(
                task.job, {"event": "late-used", "site": task.site, "round": task.round, "from_round": late.round}
            )
            return self._store.task(task.id)

    def superseded(self, task: Task) -> None:
        """A fresh answer of the site has been accepted."""
        late = self._store.late(task.job, task.site)
        with self._store.tx():
            self._answered(task)
            if late is not None and not late.used and (late.round, late.index) < (task.round, task.index):
                self._void(late)

    def _void(self, late: Late) -> None:
        self._drop(self.owner(late.job, late.site))
        self._store.bank(replace(late, used=True, meta={}, result=None))

    def _drop(self, owner: str) -> None:
        """The answer that is kept, and what it is a difference to."""
        self._blobs.drop_refs(owner)
        self._blobs.drop_refs(f"{owner}:base")

    def closed(self, job: str, site: str) -> list[tuple[str, bool]]:
        """Tasks that a returning site may still hold: their ids, and whether one that has begun is to be finished."""
        found = []
        for task in self._store.dropped_tasks(job, site, _DROPPED_SHOWN):
            call = self._store.call(task.job, task.round, task.index)
            found.append((task.id, call is not None and call.settings.get("late") == "use"))
        return found


def _sent(task: Task) -> str:
    return f"{LateResults.owner(task.job, task.site)}:sent:{task.round}.{task.index}"


def _number(owner: str) -> tuple[int, int]:
    """Round and index in such a name."""
    round_, _, index = owner.rpartition(":")[2].partition(".")
    return int(round_), int(index)


def _base(meta: Mapping[str, Any]) -> bytes | None:
    """What an answer is a difference to (see hub/wires.py)."""
    wire = meta.get("wire")
    return bytes.fromhex(wire["base"]) if wire and wire["base"] else None
