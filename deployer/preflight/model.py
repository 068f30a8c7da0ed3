"""What a check found. Pure data: to show, to refuse by, to emit as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from deployer.errors import FedspanError, PreflightError

Level = Literal["ok", "unknown", "warning", "refused"]
"""`unknown`: it could not be asked, which stops nothing. `refused`: it can't work, so nothing is made."""

MARKS: dict[Level, str] = {"ok": "ok", "unknown": "?", "warning": "!", "refused": "no"}


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        subject: what was looked at: `engine`, `credentials`, `quota`, …
        what: what was found, one clause.
        participant: whom it concerns; empty for everybody.
        why: the cause, or the cloud's own words.
        next_step: what to type or do.
        error: of which kind a refusal is.
    """

    subject: str
    what: str
    level: Level = "ok"
    participant: str = ""
    why: str = ""
    next_step: str = ""
    error: type[FedspanError] = PreflightError

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "subject": self.subject,
            "participant": self.participant or None,
            "level": self.level,
            "what": self.what,
            "why": self.why or None,
            "next": self.next_step or None,
        }

    def __str__(self) -> str:
        who = f"{self.participant}: " if self.participant else ""
        text = f"{self.subject}: {who}{self.what}"
        return f"{text}: {self.why}" if self.why else text


def refusals(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop everything."""
    return [finding for finding in findings if finding.level == "refused"]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise when something stands in the way; everything that does is told at once.

    Raises:
        PreflightError: or, for a single refusal, the error of its kind.
    """
    found = refusals(findings)
    if not found:
        return
    if len(found) == 1:
        only = found[0]
        raise only.error(
            only.what,
            participant=only.participant or None,
            why=f"{only.why}; checked before anything was made" if only.why else "checked before anything was made",
            next_step=only.next_step or None,
        )
    lines = "".join(
        f"\n  {finding}" + (f"\n    next: {finding.next_step}" if finding.next_step else "") for finding in found
    )
    error = PreflightError(
        f"{len(found)} things stand in the way, nothing was made",
        why=lines,
        next_step="fedspan doctor explains all checks",
    )
    codes = {finding.error.exit_code for finding in found}
    if len(codes) == 1:
        error.exit_code = codes.pop()
    raise error
