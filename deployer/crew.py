"""Everybody at once: one function for each participant in parallel, engines bounded by memory, all waited for.

A participant that fails stops nobody else. What failed is told together at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from deployer.deployment import Deployment
from deployer.engine import StackEngine
from deployer.errors import FedspanError, Interrupted, UsageError
from deployer.interrupts import Interrupts
from deployer.live import Screen
from deployer.member import Member
from deployer.runlog import RunLog
from deployer.settings import setting
from deployer.starts import Starts, urgency

Result = TypeVar("Result")


def memory_available() -> int:
    """Megabytes that can be taken without swapping; 4096 where it can't be found out."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024
    except (OSError, StopIteration, ValueError):
        return 4096


def engines_at_once(realm_kind: str, available_mb: int, wanted: int) -> int:
    """How many stacks may run at the same time: what memory allows, one at least. FEDSPAN_PARALLEL goes before."""
    given = os.environ.get("FEDSPAN_PARALLEL")
    if given:
        if not given.isdigit() or int(given) < 1:
            raise UsageError(
                f"FEDSPAN_PARALLEL={given!r} is no number of stacks", next_step="FEDSPAN_PARALLEL=2, or unset it"
            )
        return int(given)
    need = setting("STACK_MEMORY_REAL" if realm_kind == "real" else "STACK_MEMORY_SANDBOX")
    return max(1, min(wanted, int(available_mb * 0.8 // need)))


class Several(FedspanError):
    """More than one participant failed. The exit code is the first one's."""

    def __init__(self, errors: dict[str, BaseException], total: int) -> None:
        first = next(iter(errors.values()))
        told = "\n".join(f"  {_indented(str(error))}" for error in errors.values())
        super().__init__(f"{len(errors)} of {total} participants failed\n{told}")
        self.errors = errors
        self.exit_code = getattr(first, "exit_code", 1)


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def together(errors: dict[str, BaseException], total: int) -> BaseException:
    """One error that tells all of them. An interruption goes before, something unexpected next."""
    for error in errors.values():
        if isinstance(error, Interrupted):
            error.participant = None
            return error
    for error in errors.values():
        if not hasattr(error, "exit_code"):
            return error
    return next(iter(errors.values())) if len(errors) == 1 else Several(errors, total)


@dataclass
class Crew:
    """What the parts of one command share."""

    deployment: Deployment
    screen: Screen
    interrupts: Interrupts
    log: RunLog
    verb: str
    _engines: dict[str, StackEngine] = field(default_factory=dict)
    _slots: threading.BoundedSemaphore | None = None
    starts: Starts = field(default_factory=lambda: Starts(os.cpu_count() or 1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def engine(self, member: Member) -> StackEngine | None:
        """The engine of a participant's stack; None for a participant without one."""
        if member.cloud is None:
            return None
        return self.engine_named(member.name)

    def engine_named(self, name: str) -> StackEngine:
        """The engine of a stack by its name (also of one that the spec no longer has)."""
        with self._lock:
            if name not in self._engines:
                self._engines[name] = StackEngine(
                    participant=name,
                    home=self.deployment.home,
                    realm=self.deployment.realm,
                    interrupts=self.interrupts,
                    log=self.log.file(name),
                    on_step=lambda state, step: self._step(name, state, step),
                    verb=self.verb,
                )
            return self._engines[name]

    def _step(self, name: str, state: str, step: object) -> None:
        from deployer.engine_events import Step

        assert isinstance(step, Step), "the engine's events tell steps"
        self.starts.works(name)
        self.screen.resource(name, state, step)
        if state == "done":
            self.deployment.ledger.event(name, step.action, step.title)

    def slot(self) -> AbstractContextManager[object]:
        """Room in memory for one running engine."""
        with self._lock:
            if self._slots is None:
                wanted = max(1, len(self.deployment.members))
                count = engines_at_once(self.deployment.realm.kind, memory_available(), wanted)
                self._slots = threading.BoundedSemaphore(count)
            return self._slots

    def each(
        self, members: Iterable[Member], work: Callable[[Member], Result]
    ) -> tuple[dict[str, Result], dict[str, BaseException]]:
        """`work` for every member at once; waits for all. Results, and what was raised, by name."""
        members = list(members)
        results: dict[str, Result] = {}
        errors: dict[str, BaseException] = {}
        if not members:
            return results, errors
        with ThreadPoolExecutor(len(members), thread_name_prefix="fedspan") as pool:
            futures = {member.name: pool.submit(work, member) for member in sorted(members, key=urgency)}
            waiting = set(futures.values())
            while waiting:  # in slices, so that signals are handled in this thread meanwhile
                waiting = wait(waiting, timeout=0.2).not_done
            for member in members:
                error = futures[member.name].exception()
                if error is None:
                    results[member.name] = futures[member.name].result()
                else:
                    errors[member.name] = error
        return results, errors

    def failed(self, name: str, error: BaseException) -> None:
        """Note and show that a participant failed."""
        phase = "interrupted" if isinstance(error, Interrupted) else "failed"
        what = getattr(error, "what", None) or f"{type(error).__name__}: {error}"
        why = getattr(error, "why", None)
        self.screen.phase(name, phase, f"{what}: {why}" if why else what)
        if self.deployment.ledger.participant(name) is not None:
            self.deployment.ledger.record(name, "failed", detail=what)
