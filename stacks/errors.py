"""What can be wrong with a stack's arguments, said so that its reader can mend it."""

from __future__ import annotations

from typing import ClassVar


class StackArgumentError(ValueError):
    """An argument of a stack that no cloud should ever see.

    Carries the same attributes as the errors of the other packages (`what`, `participant`, `why`, `next_step`, `log`,
    `exit_code`), so that the command shows it like them; it stands apart because `stacks` depends on no other package.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, field: str, what: str, *, participant: str | None = None, next_step: str | None = None) -> None:
        self.field = field
        self.what = what
        self.participant = participant
        self.why: str | None = None
        self.next_step = next_step or "give another value, in federation.yml or as an option, then the same command"
        self.log: str | None = None
        super().__init__(str(self))

    def __str__(self) -> str:
        whose = f" ({self.participant})" if self.participant else ""
        hint = f"\n  next: {self.next_step}" if self.next_step else ""
        return f"{self.field}: {self.what}{whose}{hint}"
