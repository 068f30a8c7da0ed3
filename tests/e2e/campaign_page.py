"""docs/faults.md: the campaign's table, written by the suite when it is asked to."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Seen:
    """A row of the table: one run, also one that failed."""

    step: str
    fault: str
    then: str
    saw: str = ""
    left: int | None = None
    """How many things both clouds hold at the end, counted before anything is asserted of it; None: not yet counted."""
    passed: bool = False


PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
HEAD = """# Faults on purpose

Written by the suite (`FEDSPAN_WRITE_DOCS=1 make test-slow ARGS=tests/e2e`). Each row is one run: `up` or `down` of one
site in the emulated clouds, struck by one fault at one call; then `up` again and `down`, or `down` at once. At the end
both clouds were asked what they hold. *answer lost*: the cloud did it, and the connection broke before anybody heard.
*both killed*: fedspan and the engine, by `kill -9`, after the cloud did it. *network gone*: from this call on nothing
comes through. The real clouds and the real engine were not part of it.
"""
_NOISE = (
    (re.compile(r"\b(i|vpc|subnet|igw|rtb|sg|eni|eipalloc|vol|sgr)-[0-9a-f]{6,}"), r"\1-…"),
    (re.compile(r"/subscriptions/\S+"), "/subscriptions/…"),
    (re.compile(r"\b127\.\d+\.\d+\.\d+"), "ADDRESS"),
    (re.compile(r"[|\n]"), " "),
)


def plain(text: str, limit: int = 150) -> str:
    """What a user read, without what differs from run to run."""
    for pattern, instead in _NOISE:
        text = pattern.sub(instead, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def write_rows(section: str, rows: list[Seen]) -> None:
    """Put the rows of one section into the page, when the docs are to be written.

    Raises:
        AssertionError: a run has failed; the page stays as it is.
    """
    if not os.environ.get("FEDSPAN_WRITE_DOCS") or not rows:
        return
    failed = [f"{row.step}, {row.fault}" for row in rows if not row.passed]
    assert failed == [], f"docs/faults.md is not written, runs of {section!r} have failed"
    with (PAGE.parent / ".faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(section, rows)
        (PAGE.parent / ".faults.lock").unlink()


def _write(section: str, rows: list[Seen]) -> None:
    sections = dict(
        re.findall(r"^## (.+?)\n\n(.*?)(?=^## |\Z)", PAGE.read_text() if PAGE.exists() else "", re.M | re.S)
    )
    lines = [f"{len(rows)} runs.", "", "| step | fault | what the user saw | then | left |", "|---|---|---|---|---|"]
    lines += [f"| {row.step} | {row.fault} | {plain(row.saw)} | {row.then} | {row.left or 'nothing'} |" for row in rows]
    sections[section] = "\n".join(lines) + "\n"
    body = "\n".join(f"## {name}\n\n{sections[name].rstrip()}\n" for name in sorted(sections))
    PAGE.write_text(f"{HEAD}\n{body}")
