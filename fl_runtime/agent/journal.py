"""What an agent must not forget: jobs, their processes, tasks, results that the server has not confirmed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime.agent.shaped import SHAPED_SCHEMA
from fl_runtime.blobs import BLOB_SCHEMA, UNLINK_AFTER_S, BlobStore
from fl_runtime.db import Row, Sqlite
from fl_runtime.processes import ProcessId

_SCHEMA = (
    BLOB_SCHEMA
    + """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, envelope BLOB, bundle BLOB, spec TEXT, state TEXT, why TEXT,
    epoch INTEGER NOT NULL DEFAULT 0, process TEXT
);
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, job TEXT, attempt INTEGER, name TEXT, meta TEXT,
    payload BLOB, length INTEGER, state TEXT, result BLOB, answer TEXT, error TEXT
);
CREATE INDEX tasks_job ON tasks (job, state);
"""
)

MIGRATIONS = (_SCHEMA, SHAPED_SCHEMA)

# States of a task here.
ASSIGNED, READY, DONE, CLOSED = "assigned", "ready", "done", "closed"


@dataclass
class TaskRow:
    """A task on this site. `done`: the result is on disk here; `closed`: the server has it, or wants it no more."""

    id: str
    job: str
    attempt: int
    name: str
    meta: dict[str, Any]
    payload: bytes | None
    length: int
    state: str
    result: bytes | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def more(self) -> list[bytes]:
        """Models that go with the task beside its payload."""
        return [bytes.fromhex(blob) for blob in (self.meta.get("blobs") or {}).values()]


@dataclass(frozen=True)
class JobRow:
    id: str
    envelope: bytes
    bundle: bytes
    spec: dict[str, Any]
    state: str  # accepted, refused, left, failed, over
    why: str
    epoch: int
    process: ProcessId | None


class Journal:
    """One SQLite file with the blobs' rows in it."""

    def __init__(self, state: Path, quota: Callable[[], int | None] = lambda: None) -> None:
        """`quota`: bytes that blobs may take; None = what the disk has."""
        self.db = Sqlite(state / "agent.db", MIGRATIONS)
        self.blobs = BlobStore(state, self.db, quota)

    # --- jobs

    def job(self, job: str) -> JobRow | None:
        row = self.db.one("SELECT * FROM jobs WHERE id = ?", job)
        return _job(row) if row else None

    def jobs(self, state: str) -> list[JobRow]:
        return [_job(row) for row in self.db.all("SELECT * FROM jobs WHERE state = ? ORDER BY rowid", state)]

    def add_job(self, job: str, envelope: bytes, bundle: bytes, spec: Mapping[str, Any], state: str, why: str) -> None:
        self.db.run(
            "INSERT OR REPLACE INTO jobs (id, envelope, bundle, spec, state, why) VALUES (?, ?, ?, ?, ?, ?)",
            *(job, envelope, bundle, json.dumps(dict(spec)), state, why),
        )

    def set_job(self, job: str, state: str, why: str = "") -> None:
        self.db.run("UPDATE jobs SET state = ?, why = ? WHERE id = ?", state, why, job)

    def set_process(self, job: str, epoch: int, process: ProcessId | None) -> None:
        text = json.dumps([process.pid, process.started, process.boot]) if process else None
        self.db.run("UPDATE jobs SET epoch = ?, process = ? WHERE id = ?", epoch, text, job)

    def end_job(self, job: str, why: str) -> None:
        """The job is over: its tasks are closed, its blobs released."""
        with self.db.tx():
            self.set_job(job, "over", why)
            self.db.run("UPDATE tasks SET state = 'closed' WHERE job = ?", job)
            self.blobs.drop_refs(f"job:{job}:")
        self.blobs.abandon(f"job:{job}:")

    # --- tasks

    def assign(self, task: TaskRow) -> TaskRow:
        """Note a task that was pushed; one that is known already is returned as it stands."""
        with self.db.tx():
            self.db.run(
                "INSERT OR IGNORE INTO tasks (id, job, attempt, name, meta, payload, length, state, answer, error)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}', '')",
                *(
                    task.id,
                    task.job,
                    task.attempt,
                    task.name,
                    json.dumps(task.meta),
                    task.payload,
                    task.length,
                    task.state,
                ),
            )
            known = self.task(task.id)
        assert known is not None
        return known

    def task(self, task: str) -> TaskRow | None:
        row = self.db.one("SELECT * FROM tasks WHERE id = ?", task)
        return _task(row) if row else None

    def tasks(self, job: str, *states: str) -> list[TaskRow]:
        marks = ",".join("?" * len(states))
        rows = self.db.all(f"SELECT * FROM tasks WHERE job = ? AND state IN ({marks}) ORDER BY seq", job, *states)  # noqa: S608 - marks are question marks
        return [_task(row) for row in rows]

    def undelivered(self) -> list[TaskRow]:
        """Results that the server has not confirmed."""
        return [_task(row) for row in self.db.all("SELECT * FROM tasks WHERE state = 'done' ORDER BY seq")]

    def ready(self, task: str, payload: bytes | None = None, meta: Mapping[str, Any] | None = None) -> None:
        """The content is here; `payload` and `meta` where it was decoded or filtered."""
        if payload is not None:
            sql = "UPDATE tasks SET payload = ?, meta = ? WHERE id = ? AND state = 'assigned'"
            self.db.run(sql, payload, json.dumps(dict(meta or {})), task)
        self.db.run("UPDATE tasks SET state = 'ready' WHERE id = ? AND state = 'assigned'", task)

    def done(self, task: str, result: bytes | None, answer: Mapping[str, Any], error: str = "") -> None:
        self.db.run(
            "UPDATE tasks SET state = 'done', result = ?, answer = ?, error = ?"
            " WHERE id = ? AND state IN ('assigned', 'ready')",
            *(result, json.dumps(dict(answer)), error, task),
        )

    def settle_task(self, task: TaskRow) -> None:
        """The server needs it no more, but the script does: see `close_task`."""
        self.db.run("UPDATE tasks SET state = 'closed' WHERE id = ?", task.id)

    def close_task(self, task: TaskRow) -> None:
        """Nobody needs it here any more."""
        with self.db.tx():
            self.db.run("UPDATE tasks SET state = 'closed' WHERE id = ?", task.id)
            self.blobs.drop_refs(f"job:{task.job}:task:{task.id}:")
        self.blobs.collect(0.0 if task.state == DONE else UNLINK_AFTER_S)  # who has answered has opened its payload

    def close(self) -> None:
        self.db.close()


def _job(row: Row) -> JobRow:
    process = ProcessId(*json.loads(row["process"])) if row["process"] else None
    return JobRow(
        row["id"],
        row["envelope"],
        row["bundle"],
        json.loads(row["spec"]),
        row["state"],
        row["why"],
        row["epoch"],
        process,
    )


def _task(row: Row) -> TaskRow:
    return TaskRow(
        id=row["id"],
        job=row["job"],
        attempt=row["attempt"],
        name=row["name"],
        meta=json.loads(row["meta"]),
        payload=row["payload"],
        length=row["length"],
        state=row["state"],
        result=row["result"],
        answer=json.loads(row["answer"]),
        error=row["error"],
    )
