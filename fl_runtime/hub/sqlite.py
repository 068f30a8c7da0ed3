"""The hub's state in one SQLite file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fl_runtime.blobs.store import BLOB_SCHEMA
from fl_runtime.db import Database, Row
from fl_runtime.hub.state import ACCEPTED, ANSWERED, FINAL, OPEN, Boundary, Call, Job, Task

_SCHEMA = (
    BLOB_SCHEMA
    + """
CREATE TABLE participants (
    name TEXT PRIMARY KEY, role TEXT, serial TEXT, version TEXT, labels TEXT, address TEXT,
    first_seen REAL, last_seen REAL
);
CREATE TABLE revoked (serial TEXT PRIMARY KEY, at REAL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, name TEXT, spec TEXT, submitter TEXT, envelope BLOB, signature BLOB, certificate BLOB,
    bundle BLOB, bundle_length INTEGER, state TEXT, cause TEXT, submitted REAL, started REAL, ended REAL,
    epoch INTEGER NOT NULL DEFAULT 0, process TEXT
);
CREATE TABLE job_sites (job TEXT, site TEXT, state TEXT, why TEXT, PRIMARY KEY (job, site)) WITHOUT ROWID;
CREATE TABLE calls (
    job TEXT, round INTEGER, idx INTEGER, name TEXT, targets TEXT, digest TEXT, meta TEXT, payload BLOB, settings TEXT,
    state TEXT, outcome TEXT, waited REAL, PRIMARY KEY (job, round, idx)
);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, job TEXT, round INTEGER, idx INTEGER, site TEXT, attempt INTEGER, state TEXT, meta TEXT,
    result BLOB, why TEXT, answered INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_call ON tasks (job, round, idx);
CREATE INDEX tasks_site ON tasks (job, site, state);
CREATE TABLE boundaries (
    job TEXT, round INTEGER, state TEXT, model BLOB, metrics TEXT, at REAL, PRIMARY KEY (job, round)
);
CREATE TABLE metrics (job TEXT, site TEXT, key TEXT, value REAL, step INTEGER, round INTEGER, at REAL);
CREATE INDEX metrics_job ON metrics (job);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, at REAL, document TEXT);
CREATE INDEX events_job ON events (job, number);
CREATE TABLE sequence (answers INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);
"""
)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class SqliteState:
    """See `StateStore`. The blob store shares `db`, so that a row and its reference are one transaction."""

    def __init__(self, path: Path) -> None:
        self.db = Database(path, [_SCHEMA])
        self._revoked: frozenset[str] | None = None

    def tx(self) -> AbstractContextManager[None]:
        return self.db.tx()

    # --- participants

    def saw(self, name: str, role: str, serial: str, version: str, labels: Mapping[str, str], address: str) -> None:
        now = time.time()
        self.db.run(
            "INSERT INTO participants VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " role = excluded.role, serial = excluded.serial, version = excluded.version, labels = excluded.labels,"
            " address = excluded.address, last_seen = excluded.last_seen",
            *(name, role, serial, version, _json(dict(labels)), address, now, now),
        )

    def participants(self) -> list[dict[str, Any]]:
        rows = self.db.all("SELECT * FROM participants ORDER BY name")
        return [{**dict(row), "labels": json.loads(row["labels"])} for row in rows]

    def revoke(self, serial: str) -> None:
        self.db.run("INSERT OR IGNORE INTO revoked VALUES (?, ?)", serial, time.time())
        self._revoked = None

    def revoked(self) -> frozenset[str]:
        known = self._revoked
        if known is None:
            known = frozenset(row["serial"] for row in self.db.all("SELECT serial FROM revoked"))
            self._revoked = known
        return known

    # --- jobs

    def add_job(self, job: Job) -> bool:
        done = self.db.run(
            "INSERT OR IGNORE INTO jobs (id, name, spec, submitter, envelope, signature, certificate, bundle,"
            " bundle_length, state, cause, submitted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(job.id, job.name, _json(job.spec), job.submitter, job.envelope, job.signature, job.certificate),
            *(job.bundle, job.bundle_length, job.state, job.cause, time.time()),
        )
        return done == 1

    def job(self, job: str) -> Job | None:
        row = self.db.one("SELECT * FROM jobs WHERE id = ?", job)
        return _job(row) if row else None

    def jobs(self, states: Sequence[str] = ()) -> list[Job]:
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        return [_job(row) for row in self.db.all(f"SELECT * FROM jobs {where} ORDER BY submitted, id", *states)]  # noqa: S608 - marks are question marks

    def set_job(self, job: str, state: str, cause: str = "") -> None:
        now = time.time()
        ended = now if state in FINAL else None
        self.db.run(
            "UPDATE jobs SET state = ?, cause = ?, ended = ?,"
            " started = CASE WHEN ? = 'RUNNING' THEN COALESCE(started, ?) ELSE started END WHERE id = ?",
            *(state, cause, ended, state, now, job),
        )

    def set_process(self, job: str, epoch: int, process: tuple[int, int, str] | None) -> None:
        self.db.run("UPDATE jobs SET epoch = ?, process = ? WHERE id = ?", epoch, _json(process), job)

    def set_site(self, job: str, site: str, state: str, why: str = "") -> None:
        self.db.run("INSERT OR REPLACE INTO job_sites VALUES (?, ?, ?, ?)", job, site, state, why)

    def sites(self, job: str) -> dict[str, tuple[str, str]]:
        rows = self.db.all("SELECT * FROM job_sites WHERE job = ? ORDER BY site", job)
        return {row["site"]: (row["state"], row["why"]) for row in rows}

    # --- calls and tasks

    def open_call(self, call: Call, tasks: Sequence[Task]) -> None:
        with self.tx():
            self.db.run(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', '{}', 0)",
                *(call.job, call.round, call.index, call.name, _json(call.targets), call.digest, _json(call.meta)),
                *(call.payload, _json(call.settings)),
            )
            for task in tasks:
                self.db.run(
                    "INSERT INTO tasks (id, job, round, idx, site, attempt, state, meta, why)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, '{}', '')",
                    *(task.id, task.job, task.round, task.index, task.site, task.attempt, task.state),
                )

    def call(self, job: str, round_: int, index: int) -> Call | None:
        row = self.db.one("SELECT * FROM calls WHERE job = ? AND round = ? AND idx = ?", job, round_, index)
        return _call(row) if row else None

    def open_calls(self, job: str) -> list[Call]:
        return [_call(row) for row in self.db.all("SELECT * FROM calls WHERE job = ? AND state = 'open'", job)]

    def close_call(self, call: Call, outcome: Mapping[str, Any]) -> None:
        key = (call.job, call.round, call.index)
        with self.tx():
            self.db.run(
                "UPDATE calls SET state = 'closed', outcome = ? WHERE job = ? AND round = ? AND idx = ?",
                _json(dict(outcome)),
                *key,
            )
            self.db.run(
                "UPDATE tasks SET state = 'dropped' WHERE job = ? AND round = ? AND idx = ? AND state IN (?, ?)",
                *(*key, OPEN, ANSWERED),
            )

    def add_waited(self, call: Call, seconds: float) -> None:
        self.db.run(
            "UPDATE calls SET waited = waited + ? WHERE job = ? AND round = ? AND idx = ?",
            *(seconds, call.job, call.round, call.index),
        )

    def task(self, task: str) -> Task | None:
        row = self.db.one("SELECT * FROM tasks WHERE id = ?", task)
        return _task(row) if row else None

    def tasks(self, job: str, round_: int, index: int) -> list[Task]:
        rows = self.db.all(
            "SELECT * FROM tasks WHERE job = ? AND round = ? AND idx = ? ORDER BY site", job, round_, index
        )
        return [_task(row) for row in rows]

    def open_tasks(self, job: str, site: str) -> list[Task]:
        rows = self.db.all(
            "SELECT * FROM tasks WHERE job = ? AND site = ? AND state = 'open' ORDER BY round, idx", job, site
        )
        return [_task(row) for row in rows]

    def answer(self, task: str, meta: Mapping[str, Any], result: bytes | None) -> None:
        with self.tx():
            self.db.run("UPDATE sequence SET answers = answers + 1")
            self.db.run(
                "UPDATE tasks SET state = 'answered', meta = ?, result = ?, answered = (SELECT answers FROM sequence)"
                " WHERE id = ?",
                *(_json(dict(meta)), result, task),
            )

    def judge(self, task: str, state: str, why: str = "") -> None:
        with self.tx():
            self.db.run("UPDATE sequence SET answers = answers + 1")
            self.db.run(
                "UPDATE tasks SET state = ?, why = ?, answered = (SELECT answers FROM sequence) WHERE id = ?",
                *(state, why, task),
            )

    def accepted_order(self, job: str, after_round: int) -> list[tuple[int, int, str]]:
        rows = self.db.all(
            "SELECT round, idx, site FROM tasks WHERE job = ? AND round > ? AND state = ? ORDER BY answered",
            *(job, after_round, ACCEPTED),
        )
        return [(row["round"], row["idx"], row["site"]) for row in rows]

    # --- boundaries

    def commit(self, boundary: Boundary) -> None:
        self.db.run(
            "INSERT OR REPLACE INTO boundaries VALUES (?, ?, ?, ?, ?, ?)",
            *(
                boundary.job,
                boundary.round,
                _json(boundary.state),
                boundary.model,
                _json(boundary.metrics),
                boundary.at,
            ),
        )

    def last_boundary(self, job: str) -> Boundary | None:
        row = self.db.one("SELECT * FROM boundaries WHERE job = ? ORDER BY round DESC LIMIT 1", job)
        return _boundary(row) if row else None

    def boundaries(self, job: str) -> list[Boundary]:
        return [_boundary(row) for row in self.db.all("SELECT * FROM boundaries WHERE job = ? ORDER BY round", job)]

    # --- metrics and events

    def add_metrics(self, job: str, site: str, items: Sequence[Mapping[str, Any]]) -> None:
        with self.tx():
            for item in items:
                self.db.run(
                    "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?)",
                    *(job, site, str(item["key"]), float(item["value"]), item.get("step"), item.get("round")),
                    float(item.get("time") or time.time()),
                )

    def metrics(self, job: str) -> list[dict[str, Any]]:
        rows = self.db.all("SELECT site, key, value, step, round, at FROM metrics WHERE job = ? ORDER BY rowid", job)
        return [dict(row) for row in rows]

    def add_event(self, job: str, document: Mapping[str, Any]) -> int:
        with self.tx():
            self.db.run(
                "INSERT INTO events (job, at, document) VALUES (?, ?, ?)", job, time.time(), _json(dict(document))
            )
            row = self.db.one("SELECT last_insert_rowid() AS number")
            return int(row["number"]) if row else 0

    def events(self, job: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        rows = self.db.all("SELECT * FROM events WHERE job = ? AND number > ? ORDER BY number", job, after)
        return [(row["number"], {**json.loads(row["document"]), "at": row["at"]}) for row in rows]

    def close(self) -> None:
        self.db.close()


def _job(row: Row) -> Job:
    values = dict(row)
    values["spec"] = json.loads(row["spec"])
    process = json.loads(row["process"]) if row["process"] else None
    values["process"] = tuple(process) if process else None
    return Job(**values)


def _call(row: Row) -> Call:
    return Call(
        job=row["job"],
        round=row["round"],
        index=row["idx"],
        name=row["name"],
        targets=tuple(json.loads(row["targets"])),
        digest=row["digest"],
        meta=json.loads(row["meta"]),
        payload=row["payload"],
        settings=json.loads(row["settings"]),
        state=row["state"],
        outcome=json.loads(row["outcome"]),
        waited=row["waited"],
    )


def _task(row: Row) -> Task:
    return Task(
        id=row["id"],
        job=row["job"],
        round=row["round"],
        index=row["idx"],
        site=row["site"],
        attempt=row["attempt"],
        state=row["state"],
        meta=json.loads(row["meta"]),
        result=row["result"],
        why=row["why"],
        order=row["answered"],
    )


def _boundary(row: Row) -> Boundary:
    return Boundary(
        job=row["job"],
        round=row["round"],
        state=json.loads(row["state"]),
        model=row["model"],
        metrics=json.loads(row["metrics"]),
        at=row["at"],
    )
