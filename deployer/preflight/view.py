"""Findings for people: one line for each, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deployer.preflight.model import MARKS, Finding


def lines(findings: Iterable[Finding], everything: bool = False) -> Iterator[str]:
    """What is not in order; with `everything` the rest too."""
    for finding in findings:
        if finding.level == "ok" and not everything:
            continue
        yield f"  {MARKS[finding.level]:>2}  {finding}"
        if finding.next_step:
            yield f"        next: {finding.next_step}"


def summary(findings: Iterable[Finding]) -> str:
    """`checked before anything is made: 23 in order, 1 not asked`."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.level] = counts.get(finding.level, 0) + 1
    words = {"ok": "in order", "warning": "to look at", "unknown": "not asked", "refused": "in the way"}
    told = ", ".join(f"{counts[level]} {text}" for level, text in words.items() if counts.get(level))
    return f"checked before anything is made: {told}"
