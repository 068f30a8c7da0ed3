"""A job's current task on a site, and which ranks of its script are through with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fl_runtime.agent.journal import TaskRow

ALONE_S = 30.0  # after an answer: then a rank 0 whose siblings have never attached goes on without them


@dataclass
class Current:
    """Rank 0 answers it; the others have it as long as they have not asked for the next one."""

    task: TaskRow
    epoch: int
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
            others: some rank beside 0 has attached; a script whose rank 0 alone asks is not waited for in vain.
        """
        if self.done_at is None:
            return False
        return len(self.through) >= world - 1 or (not others and time.monotonic() - self.done_at >= ALONE_S)
