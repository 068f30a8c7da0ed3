"""A job's tasks on a site: which one its script has, and which ranks of the script are through with it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fl_runtime import processes
from fl_runtime.agent.journal import TaskRow

log = logging.getLogger("fedspan.agent")

ALONE_S = 30.0  # after an answer: then a rank 0 whose siblings have never asked for a task goes on without them


@dataclass
class Current:
    """Rank 0 answers it; the others have it as long as they have not asked for the next one."""

    task: TaskRow
    done_at: float | None = None
    through: set[int] = field(default_factory=set)  # ranks beside 0
    afterwards: list[Callable[[], None]] = field(default_factory=list)  # when all are through

    @property
    def done(self) -> bool:
        return self.done_at is not None

    def is_over(self, world: int, others: bool) -> bool:
        """Answered, and every rank is through with it.

        Args:
            world: ranks of the script.
            others: some rank beside 0 has asked for a task; a script whose rank 0 alone asks, whoever else is
                attached, is not waited for in vain.
        """
        if self.done_at is None:
            return False
        return len(self.through) >= world - 1 or (not others and time.monotonic() - self.done_at >= ALONE_S)


class Turns:
    """Any thread may call it; whoever asks for a task waits here."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.epoch = 0  # of the script's launch
        self.over = False
        self.world = 1  # ranks of the script, as torchrun's WORLD_SIZE says
        self._condition = threading.Condition()
        self._ready: deque[TaskRow] = deque()
        self._current: Current | None = None
        self._cancelled: set[str] = set()
        self._clients: dict[int, int] = {}  # rank -> pid of the process that is attached as it
        self._others = False  # a rank beside 0 of this launch has asked for a task
        self._due: list[Callable[[], None]] = []  # see `afterwards`
        self._failures = 0  # of the script, without a finished task between

    def _hide(self, task: TaskRow) -> None:
        """Every rank is through with the task: what it named is out of the script's sight."""
        raise NotImplementedError

    # --- tasks come and go

    def deliver(self, task: TaskRow) -> None:
        """A task whose content is here."""
        with self._condition:
            known = [entry.id for entry in self._ready]
            if self._current is not None:
                known.append(self._current.task.id)
            if task.id not in known:
                self._ready.append(task)
                self._condition.notify_all()

    def answered(self, task_id: str) -> None:
        """The task's result is committed."""
        with self._condition:
            self._failures = 0
            self._ready = deque(task for task in self._ready if task.id != task_id)
            if self._current is not None and self._current.task.id == task_id:
                task = self._current.task
                self._current.done_at = time.monotonic()
                self.afterwards(task_id, lambda: self._hide(task))
            self._condition.notify_all()

    def _again(self) -> None:
        """Another launch of the script begins, with the task that was not answered; under the lock."""
        if self._current is not None and not self._current.done:
            self._ready.appendleft(self._current.task)
        self._replace(None)
        self._others = False
        self._condition.notify_all()

    def begun(self, task_id: str) -> bool:
        """The script has the task."""
        with self._condition:
            return self._current is not None and self._current.task.id == task_id

    @property
    def at_work(self) -> str | None:
        """The task that the script has."""
        with self._condition:
            return self._current.task.id if self._current is not None and not self._current.done else None

    def cancel(self, task_id: str) -> None:
        with self._condition:
            self._ready = deque(task for task in self._ready if task.id != task_id)
            self._cancelled.add(task_id)
            self._condition.notify_all()

    def wait_cancelled(self, task_id: str) -> bool:
        """Block while the task is at work; True when it was cancelled, or the job has ended."""
        with self._condition:
            while not self.over and task_id not in self._cancelled:
                if self._current is None or self._current.task.id != task_id or self._current.done:
                    return False
                self._condition.wait()
            self._cancelled.discard(task_id)
            return True

    def enter(self, rank: int, pid: int) -> int | None:
        """A process attaches as this rank; the process that is in its place, if that lives."""
        with self._condition:
            other = self._clients.get(rank)
            if other is not None and other != pid and processes.start_time(other) is not None:
                return other
            self._clients[rank] = pid
            return None

    def leave(self, rank: int, pid: int) -> None:
        with self._condition:
            if self._clients.get(rank) == pid:
                del self._clients[rank]

    def next_task(self, rank: int, epoch: int, after: str | None, timeout: float | None = None) -> TaskRow | None:
        """Block until there is a task for this rank; None when the job is over.

        Rank 0 takes the next task when the last one is answered and every rank is through with it, that is has asked
        for the one after it; the other ranks follow.

        Raises:
            RuntimeError: the process is of an older launch.
            TimeoutError: there was none within `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        try:
            with self._condition:
                while not self.over:
                    if epoch != self.epoch:
                        raise RuntimeError("this process is of an older launch of the job")
                    self._others = self._others or rank != 0
                    task = self._first() if rank == 0 else self._follow(rank, after)
                    if task is not None:
                        return task
                    if until is not None and time.monotonic() >= until:
                        raise TimeoutError
                    left = None if until is None else max(0.0, until - time.monotonic())
                    if rank == 0 and self._ready:  # others are waited for, but not for ever
                        left = 1.0 if left is None else min(1.0, left)
                    self._condition.wait(left)
                return None
        finally:
            self._do_due()

    def _first(self) -> TaskRow | None:
        """What rank 0 has to do now."""
        current = self._current
        if self._ready and (current is None or current.is_over(self.world, self._others)):
            if current is not None and len(current.through) < self.world - 1:
                log.warning("%s: only rank 0 of %d uses the Client API", self.job, self.world)
            current = Current(self._ready.popleft())
            self._replace(current)
            self._condition.notify_all()
        return current.task if current is not None and not current.done else None

    def _follow(self, rank: int, after: str | None) -> TaskRow | None:
        """What another rank has to do now: what rank 0 has, or has had."""
        current = self._current
        if current is None:
            return None
        if current.task.id != after:
            return current.task
        if rank not in current.through:
            current.through.add(rank)
            if current.is_over(self.world, self._others):
                self._due += current.afterwards
                current.afterwards = []
            self._condition.notify_all()
        return None

    def _replace(self, current: Current | None) -> None:
        if self._current is not None:
            self._due += self._current.afterwards
        self._current = current

    def holds(self, task_id: str) -> bool:
        """Some ranks are not through with the task."""
        with self._condition:
            current = self._current
            if current is None or current.task.id != task_id or self.over:
                return False
            return not current.is_over(self.world, self._others)

    def afterwards(self, task_id: str, action: Callable[[], None]) -> None:
        """Do it when every rank is through with the task: at once, unless some are not."""
        with self._condition:
            if self._current is not None and self.holds(task_id):
                self._current.afterwards.append(action)
                return
        action()

    def _do_due(self) -> None:
        with self._condition:
            due, self._due = self._due, []
        for action in due:
            action()
