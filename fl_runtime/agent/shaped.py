"""The journal's part about filters and codecs: what a task's payload or result has become, so that it is done once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl_runtime.agent.journal import Journal

SHAPED_SCHEMA = """
CREATE TABLE shaped (
    task TEXT NOT NULL, step TEXT NOT NULL, job TEXT NOT NULL, blob BLOB, document TEXT NOT NULL,
    PRIMARY KEY (task, step)
);
CREATE INDEX shaped_job ON shaped (job, step);
"""
# Steps: how the payload arrived, the filtered result, the encoded result; and that the server had closed the call.
ARRIVED, FILTERED, ENCODED, LATE = "arrived", "filtered", "encoded", "late"


@dataclass(frozen=True)
class Step:
    """A blob (None: no tensors, or a failure) and plain data."""

    blob: bytes | None
    document: dict[str, Any]


class Shaped:
    """Rows by (task, step); written in the caller's transaction."""

    def __init__(self, journal: Journal) -> None:
        self._db = journal.db

    def get(self, task: str, step: str) -> Step | None:
        row = self._db.one("SELECT blob, document FROM shaped WHERE task = ? AND step = ?", task, step)
        return Step(row["blob"], json.loads(row["document"])) if row else None

    def put(self, job: str, task: str, step: str, blob: bytes | None, document: dict[str, Any]) -> None:
        """Once: what is there stays."""
        self._db.run(
            "INSERT INTO shaped (task, step, job, blob, document) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            *(task, step, job, blob, json.dumps(document)),
        )

    def count(self, job: str, step: str) -> int:
        sql = "SELECT COUNT(*) AS n FROM shaped WHERE job = ? AND step = ? AND blob IS NOT NULL"
        row = self._db.one(sql, job, step)
        return int(row["n"]) if row else 0

    def forget(self, job: str) -> None:
        """The job is over."""
        self._db.run("DELETE FROM shaped WHERE job = ?", job)
