"""Which queued job starts when, and where. Decisions only: whoever calls it sends the messages and knows the time.

A job asks every site that it wants to set aside what it needs, for a lease. With `min_sites` of them it starts; else
all are released and it tries again later, after a pause that grows and is never the same twice. The sites' own count
decides. Jobs are taken by priority, then by their time of submission; two jobs never ask the same site at once, so
none can hold what another waits for. One that has waited for long keeps younger ones away from its sites.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LEASE_S = 15.0  # what a site sets aside is its own again after this
ANSWER_S = 5.0  # for all sites to answer
STRAGGLERS_S = 1.0  # for the rest, once the minimum has granted
PAUSE_S = (0.5, 15.0)  # before the next attempt, doubled each time, with jitter
PATIENCE_S = 60.0  # of a job, before younger ones have to leave its sites alone


@dataclass(frozen=True)
class Queued:
    """A job that waits. `minimum`: sites that it needs; None = all that it wants and that could ever run it."""

    id: str
    priority: int
    submitted: float
    wanted: tuple[str, ...]  # connected now
    minimum: int | None
    named: bool  # its sites are named: no others can come


@dataclass
class Attempt:
    """One round of asking."""

    number: int
    asked: tuple[str, ...]
    begun: float
    granted: set[str] = field(default_factory=set)
    denied: dict[str, str] = field(default_factory=dict)
    never: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Step:
    """What to do: ask `sites` (attempt `number`), start with them, release them, or give the job up."""

    verb: str  # ask, start, release, fail
    job: str
    sites: tuple[str, ...] = ()
    number: int = 0
    why: str = ""


class Scheduler:
    """All times are of one monotonic clock, but for `Queued.submitted`, which only orders."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._attempts: dict[str, Attempt] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._last: dict[str, dict[str, str]] = {}
        self._number = 0

    def plan(self, queue: Sequence[Queued], now: float) -> list[Step]:
        """What is to be done now."""
        self._forget({job.id for job in queue})
        steps: list[Step] = []
        closed: set[str] = {site for attempt in self._attempts.values() for site in attempt.asked}
        for job in sorted(queue, key=lambda job: (-job.priority, job.submitted, job.id)):
            since = self._since.setdefault(job.id, now)
            attempt = self._attempts.get(job.id)
            if attempt is not None:
                step = self._judge(job, attempt, now)
                if step is not None:
                    steps.append(step)
                continue
            enough = len(job.wanted) >= (job.minimum or 1)
            ready = enough and now >= self._not_before.get(job.id, 0.0) and not closed.intersection(job.wanted)
            if ready:
                steps.append(self._ask(job, now))
            if ready or (enough and now - since > PATIENCE_S):
                closed.update(job.wanted)
        return steps

    def answered(self, job: str, site: str, number: int, granted: bool, why: str, never: bool) -> bool:
        """A site's answer; False when nobody waits for it any more (what it granted is to be released)."""
        attempt = self._attempts.get(job)
        if attempt is None or attempt.number != number or site not in attempt.asked:
            return False
        if granted:
            attempt.granted.add(site)
        else:
            attempt.denied[site] = why
            if never:
                attempt.never.add(site)
        return True

    def hurry(self) -> None:
        """Something became free, or a site came: whoever pauses may try again at once."""
        self._not_before.clear()

    def waits_for(self, job: str) -> str:
        """Why it has not started, site by site; empty when it was never turned away."""
        return "; ".join(f"{site}: {why}" for site, why in sorted(self._last.get(job, {}).items()))

    # ---

    def _ask(self, job: Queued, now: float) -> Step:
        self._number += 1
        self._attempts[job.id] = Attempt(self._number, job.wanted, now)
        return Step("ask", job.id, job.wanted, self._number)

    def _judge(self, job: Queued, attempt: Attempt, now: float) -> Step | None:
        waited = now - attempt.begun
        lost = {site for site in attempt.asked if site not in job.wanted}
        open_ = set(attempt.asked) - attempt.granted - set(attempt.denied) - lost
        possible = len(attempt.asked) - len(attempt.never)
        minimum = job.minimum if job.minimum is not None else max(1, possible)
        granted = tuple(sorted(attempt.granted - lost))
        over = not open_ or waited > (STRAGGLERS_S if len(granted) >= minimum else ANSWER_S)
        if not over:
            return None
        del self._attempts[job.id]
        if len(granted) >= minimum and possible:
            self._done(job.id)
            return Step("start", job.id, granted)
        self._last[job.id] = {**attempt.denied, **dict.fromkeys(open_ | lost, "it does not answer")}
        if possible < minimum and job.named:
            why = "; ".join(f"{site}: {attempt.denied[site]}" for site in sorted(attempt.never))
            self._done(job.id)
            return Step("fail", job.id, granted, why=why)
        failures = self._failures[job.id] = self._failures.get(job.id, 0) + 1
        pause = min(PAUSE_S[1], PAUSE_S[0] * 2 ** min(failures - 1, 10))
        self._not_before[job.id] = now + pause * self._rng.uniform(0.5, 1.5)
        return Step("release", job.id, attempt.asked)

    def _done(self, job: str) -> None:
        for table in (self._failures, self._not_before, self._since, self._last):
            table.pop(job, None)

    def _forget(self, queued: set[str]) -> None:
        tables: tuple[Mapping[str, object], ...] = (self._attempts, self._since)
        for job in {job for table in tables for job in table} - queued:
            self._attempts.pop(job, None)
            self._done(job)
