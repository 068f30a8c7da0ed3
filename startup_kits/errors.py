"""The root of the errors that a user may see.

    FedspanError
    ├── SpecError      federation.yml is wrong
    └── KitError       a kit is tampered with, unsigned, expired, of another CA, or incomplete

The deployer's errors (`deployer.errors`) grow from the same root.
"""

from __future__ import annotations


class FedspanError(Exception):
    """What happened, to whom, why, and the next command to type.

    Args:
        what: what happened, one clause without a full stop.
        participant: whom it concerns.
        why: the cause, as far as it is known.
        next_step: what to type or do next.
        log: path of the log that tells more.
    """

    exit_code: int = 1

    def __init__(
        self,
        what: str,
        *,
        participant: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.participant = participant
        self.why = why
        self.next_step = next_step
        self.log = log

    def complete(self, participant: str | None, next_step: str | None) -> None:
        """Fills in what whoever raised it could not know."""
        self.participant = self.participant or participant
        self.next_step = self.next_step or next_step

    def __str__(self) -> str:
        head = f"{self.participant}: {self.what}" if self.participant else self.what
        if self.why:
            head += f":{self.why}" if self.why.startswith("\n") else f": {self.why}"
        if self.next_step:
            head += f"\n  next: {self.next_step}"
        if self.log:
            head += f"\n  log: {self.log}"
        return head


class SpecError(FedspanError):
    """federation.yml is missing or wrong; file, line and field are named."""

    exit_code = 3


class KitError(FedspanError):
    """A kit is tampered with, unsigned, expired, of another CA, or incomplete."""

    exit_code = 4
