"""Tasks of simulated sites that wait for a worker.

A site belongs to the worker that ran its first task; until then the worker that is free takes it. Each worker has at
most two tasks: one that runs and one that is there when it ends. Isolated, each site is a process, and as many run as
there are places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fl_runtime import localsock
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.simulator.host import MAX_RESTARTS

_AHEAD = 2


@dataclass(eq=False)
class Site:
    """What it has to do; `crashes`: deaths of its worker at its tasks since its last result."""

    name: str
    worker: int | None = None
    waiting: deque[pb.Task] = field(default_factory=deque)
    current: pb.Task | None = None
    crashes: int = 0


@dataclass(eq=False)
class Worker:
    """A process, or the place for one; `asked`: the host is to fork it."""

    number: int
    connection: localsock.Connection | None = None
    asked: bool = False
    sites: list[Site] = field(default_factory=list)  # with a task there, in order


class Queue:
    """Whoever calls holds the pool's lock."""

    def __init__(self, names: Sequence[str], places: int, isolate: bool) -> None:
        self.sites = {name: Site(name) for name in names}
        self.workers = {n: Worker(n) for n in range(len(names) if isolate else places)}
        self._places = places
        self._isolate = isolate
        if isolate:
            for number, site in enumerate(self.sites.values()):
                site.worker = number

    def add(self, name: str, task: pb.Task) -> None:
        """A task of the server; one that is here already is the same."""
        site = self.sites[name]
        known = [*site.waiting, *([site.current] if site.current is not None else [])]
        if all(other.task != task.task for other in known):
            site.waiting.append(task)

    def cancel(self, name: str, task: str) -> None:
        """Nobody waits for it any more; what runs goes on."""
        site = self.sites[name]
        site.waiting = deque(entry for entry in site.waiting if entry.task != task)

    def due(self) -> Iterator[tuple[Worker, Site]]:
        """Sites whose next task begins now, with their workers: it is `site.current`, and counts as theirs."""
        busy = sum(len(worker.sites) for worker in self.workers.values())
        for site in self.sites.values():
            if not site.waiting or site.current is not None:
                continue
            if self._isolate and busy >= self._places:
                return
            worker = self._worker(site)
            if not self._isolate and len(worker.sites) >= _AHEAD:
                continue
            busy += 1
            site.worker = worker.number
            site.current = site.waiting.popleft()
            worker.sites.append(site)
            yield worker, site

    def _worker(self, site: Site) -> Worker:
        if site.worker is not None:
            return self.workers[site.worker]
        return min(self.workers.values(), key=lambda worker: len(worker.sites))

    def done_with(self, worker: Worker, site: Site) -> None:
        """The site's task has ended there."""
        site.current = None
        if site in worker.sites:
            worker.sites.remove(site)

    def lost(self, worker: Worker) -> list[Site]:
        """The worker died: its tasks wait again, but for those of sites at which it died too often; these sites."""
        hit, worker.sites = worker.sites, []
        failed: list[Site] = []
        for number, site in enumerate(hit):
            if site.current is not None:
                site.waiting.appendleft(site.current)
            site.current = None
            if number == 0:  # the one that ran
                site.crashes += 1
                if site.crashes > MAX_RESTARTS:
                    site.waiting.clear()
                    failed.append(site)
        return failed
