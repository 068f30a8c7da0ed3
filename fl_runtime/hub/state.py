"""What the hub must not forget, as an interface: jobs, sites, calls, tasks, boundaries, metrics, events.

`SqlState` (hub/sqlstate.py) is the implementation, over SQLite or PostgreSQL; one contract test suite holds for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

RECEIVING, QUEUED, RUNNING = "RECEIVING", "QUEUED", "RUNNING"
FINISHED, FAILED, ABORTED = "FINISHED", "FAILED", "ABORTED"
FINAL = (FINISHED, FAILED, ABORTED)

# States of a task.
OPEN, ANSWERED, ACCEPTED, REFUSED, BROKEN, DROPPED = "open", "answered", "accepted", "refused", "failed", "dropped"


@dataclass(frozen=True)
class Job:
    id: str
    name: str
    spec: dict[str, Any]
    submitter: str
    envelope: bytes
    signature: bytes
    certificate: bytes
    bundle: bytes
    bundle_length: int
    state: str
    cause: str = ""
    submitted: float = 0.0
    started: float | None = None
    ended: float | None = None
    epoch: int = 0  # launches of the job's process here
    process: tuple[int, int, str] | None = None  # pid, start time, boot id


@dataclass(frozen=True)
class Call:
    """One broadcast or send of a workflow: replayed by its place (round, index) and the digest of what it asks."""

    job: str
    round: int
    index: int
    name: str
    targets: tuple[str, ...]
    digest: str
    meta: dict[str, Any]
    payload: bytes | None
    settings: dict[str, Any]  # min, deadline, grace
    state: str = "open"  # or closed
    outcome: dict[str, Any] = field(default_factory=dict)
    waited: float = 0.0  # seconds of its deadline that are used up


@dataclass(frozen=True)
class Task:
    """A call's part for one site."""

    id: str
    job: str
    round: int
    index: int
    site: str
    attempt: int
    state: str
    meta: dict[str, Any] = field(default_factory=dict)
    result: bytes | None = None
    why: str = ""
    order: int = 0  # in which the results came, and, once they are judged, in which that was done


@dataclass(frozen=True)
class Boundary:
    """A finished round."""

    job: str
    round: int
    state: dict[str, Any]
    model: bytes | None
    metrics: dict[str, Any]
    at: float


@dataclass(frozen=True)
class Late:
    """The newest result of a site that came after its round had closed; it may stand in for it in a later one."""

    job: str
    site: str
    task: str
    round: int
    index: int
    name: str  # of the call
    meta: dict[str, Any]
    result: bytes | None
    used: bool = False


class StateStore(Protocol):
    """All methods are durable when they return; several together within `tx()`.

    Metrics and events are committed in groups, 50 ms later at most (`tx()` takes them along); they are
    seen by reads at once.
    """

    def tx(self) -> AbstractContextManager[None]: ...

    def saw(self, name: str, role: str, serial: str, version: str, labels: Mapping[str, str], address: str) -> None: ...
    def participants(self) -> list[dict[str, Any]]: ...
    def revoke(self, serial: str) -> None: ...
    def revoked(self) -> frozenset[str]: ...

    def add_job(self, job: Job) -> bool: ...
    def job(self, job: str) -> Job | None: ...
    def jobs(self, states: Sequence[str] = ()) -> list[Job]: ...
    def set_job(self, job: str, state: str, cause: str = "") -> bool: ...  # False: it is over, and stays so
    def delete_job(self, job: str) -> bool: ...
    def set_process(self, job: str, epoch: int, process: tuple[int, int, str] | None) -> None: ...

    def set_site(self, job: str, site: str, state: str, why: str = "") -> None: ...
    def sites(self, job: str) -> dict[str, tuple[str, str]]: ...

    def open_call(self, call: Call, tasks: Sequence[Task]) -> None: ...
    def call(self, job: str, round_: int, index: int) -> Call | None: ...
    def open_calls(self, job: str) -> list[Call]: ...
    def close_call(self, call: Call, outcome: Mapping[str, Any]) -> None: ...
    def add_waited(self, call: Call, seconds: float) -> None: ...
    def task(self, task: str) -> Task | None: ...
    def tasks(self, job: str, round_: int, index: int) -> list[Task]: ...
    def open_tasks(self, job: str, site: str) -> list[Task]: ...
    def dropped_tasks(self, job: str, site: str, limit: int) -> list[Task]: ...
    def answer(self, task: str, meta: Mapping[str, Any], result: bytes | None) -> None: ...
    def judge(self, task: str, state: str, why: str = "") -> None: ...
    def accepted_order(self, job: str, after_round: int) -> list[tuple[int, int, str]]: ...

    def bank(self, late: Late) -> None: ...
    def late(self, job: str, site: str) -> Late | None: ...

    def commit(self, boundary: Boundary) -> None: ...
    def last_boundary(self, job: str) -> Boundary | None: ...
    def boundaries(self, job: str) -> list[Boundary]: ...

    def add_metrics(self, job: str, site: str, items: Sequence[Mapping[str, Any]], at: int | None = None) -> None: ...
    def metrics_at(self, job: str, site: str) -> int: ...
    def metrics(self, job: str, after: int = 0) -> list[dict[str, Any]]: ...
    def add_event(self, job: str, document: Mapping[str, Any]) -> None: ...
    def events(self, job: str, after: int) -> list[tuple[int, dict[str, Any]]]: ...
    def close(self) -> None: ...
