"""The stack's state while a deployment runs: what is done, what is pending, and the checkpoint written after every
change.

The snapshot at any moment is the new resources in the order in which they were finished, then those of the base that
were neither replaced by a new state nor deleted. Before a provider is asked to change something, the operation is
written as pending; whatever kills the engine then leaves a trace of it. Pending creates of an earlier crash are
carried along: only the user can tell what became of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields

from .identity import renamed
from .problems import InitFailed
from .reading import Import, Refresh
from .state import Pending, Resource, Snapshot
from .steps import Delete, Forget, Replace, Same, Step

Save = Callable[[Snapshot], None]


class Journal:
    """Thread-safe. `save` is None in a preview: nothing is written then."""

    def __init__(self, base: Snapshot, save: Save | None, *, clear_creates: bool = False) -> None:
        self._save_to = save
        self._lock = threading.Lock()
        self._base = list(base.resources)
        self._new: list[Resource] = []
        self._done: set[int] = set()
        self._dropped: set[int] = set()
        self._running: dict[int, Pending] = {}
        self.names: dict[str, str] = {}  # resources that have got new names: former URN -> URN
        self._kept = [] if clear_creates else [p for p in base.pending if p.type == "creating"]

    def snapshot(self) -> Snapshot:
        new = [r for r in self._new if id(r) not in self._dropped]
        rest = [renamed(r, self.names) for r in self._base if id(r) not in self._done]
        return Snapshot(new + rest, [*self._running.values(), *self._kept])

    @property
    def base(self) -> list[Resource]:
        return self._base

    def _save(self) -> None:
        if self._save_to is not None:
            self._save_to(self.snapshot())

    def save(self) -> None:
        with self._lock:
            self._save()

    # -- steps -----------------------------------------------------------------------------------------------------
    def begin(self, step: Step) -> None:
        if step.pending:
            with self._lock:
                self._running[id(step)] = Pending(step.resource.copy(), step.pending)
                self._save()

    def end(self, step: Step, error: BaseException | None) -> None:
        """Records the outcome. A step that failed leaves the state as it was, but for one that exists unready."""
        with self._lock:
            self._running.pop(id(step), None)
            if error is None or isinstance(error, InitFailed):
                self._record(step)
            if not (isinstance(step, Same) and _unchanged(step)):
                self._save()

    def _record(self, step: Step) -> None:
        if isinstance(step, Refresh):
            return  # a refresh changes the base, all at once, when all have been read
        old, new = step.old, step.new
        if isinstance(step, Same) and step.skipped:
            return
        if isinstance(step, (Delete, Forget)):
            assert old is not None
            if not (isinstance(step, Delete) and step.awaited):
                self._drop(old)
            return
        if isinstance(step, Replace):
            return  # the old state goes when the new one is there, or when it has been deleted
        assert new is not None
        self._new.append(new)
        retired = old is not None and old.delete
        if old is not None and not retired and (not isinstance(step, Import) or step.retire):
            self._drop(old)

    def _drop(self, resource: Resource) -> None:
        self._done.add(id(resource))
        self._dropped.add(id(resource))

    def rebase(self, resources: list[Resource]) -> None:
        """A refreshed base takes the place of the old one."""
        with self._lock:
            self._base = resources
            self._save()


def _unchanged(step: Same) -> bool:
    """Whether writing the checkpoint again would change anything but the order."""
    old, new = step.old, step.new
    if old is None or new is None or old.inputs is not new.inputs or old.outputs is not new.outputs:
        return False  # Same gives the new state the old one's very properties where they are identical
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(Resource) if f.name != "source_position")
