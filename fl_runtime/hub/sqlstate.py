"""The hub's state in SQL, as SQLite and PostgreSQL both speak it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fl_runtime.db import Database
from fl_runtime.errors import StorageError
from fl_runtime.hub.rows import to_boundary, to_call, to_job, to_late, to_task
from fl_runtime.hub.state import ACCEPTED, ANSWERED, FINAL, OPEN, Boundary, Call, Job, Late, Task

_OF_A_JOB = ("job_sites", "calls", "tasks", "boundaries", "metrics", "metrics_at", "late", "events")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class SqlState:
    """See `StateStore`. The blob store shares `db`, so that a row and its reference are one transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db
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
        self.db.run("INSERT INTO revoked VALUES (?, ?) ON CONFLICT DO NOTHING", serial, time.time())
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
            "INSERT INTO jobs (id, name, spec, submitter, envelope, signature, certificate, bundle,"
            " bundle_length, state, cause, submitted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            *(job.id, job.name, _json(job.spec), job.submitter, job.envelope, job.signature, job.certificate),
            *(job.bundle, job.bundle_length, job.state, job.cause, time.time()),
        )
        return done == 1

    def job(self, job: str) -> Job | None:
        row = self.db.one("SELECT * FROM jobs WHERE id = ?", job)
        return to_job(row) if row else None

    def jobs(self, states: Sequence[str] = ()) -> list[Job]:
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        return [to_job(row) for row in self.db.all(f"SELECT * FROM jobs {where} ORDER BY submitted, id", *states)]  # noqa: S608 - marks are question marks

    def set_job(self, job: str, state: str, cause: str = "") -> bool:
        now = time.time()
        ended = now if state in FINAL else None
        done = self.db.run(
            "UPDATE jobs SET state = ?, cause = ?, ended = ?,"
            " started = CASE WHEN ? = 'RUNNING' THEN COALESCE(started, ?) ELSE started END"
            " WHERE id = ? AND state NOT IN (?, ?, ?)",
            *(state, cause, ended, state, now, job, *FINAL),
        )
        return done == 1

    def set_process(self, job: str, epoch: int, process: tuple[int, int, str] | None) -> None:
        self.db.run("UPDATE jobs SET epoch = ?, process = ? WHERE id = ?", epoch, _json(process), job)

    def delete_job(self, job: str) -> bool:
        with self.tx():
            for table in _OF_A_JOB:
                self.db.run(f"DELETE FROM {table} WHERE job = ?", job)  # noqa: S608 - table is one of the list
            return self.db.run("DELETE FROM jobs WHERE id = ?", job) == 1

    def set_site(self, job: str, site: str, state: str, why: str = "") -> None:
        self.db.run(
            "INSERT INTO job_sites VALUES (?, ?, ?, ?)"
            " ON CONFLICT (job, site) DO UPDATE SET state = excluded.state, why = excluded.why",
            *(job, site, state, why),
        )

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
        return to_call(row) if row else None

    def open_calls(self, job: str) -> list[Call]:
        return [to_call(row) for row in self.db.all("SELECT * FROM calls WHERE job = ? AND state = 'open'", job)]

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
        return to_task(row) if row else None

    def tasks(self, job: str, round_: int, index: int) -> list[Task]:
        rows = self.db.all(
            "SELECT * FROM tasks WHERE job = ? AND round = ? AND idx = ? ORDER BY site", job, round_, index
        )
        return [to_task(row) for row in rows]

    def open_tasks(self, job: str, site: str) -> list[Task]:
        rows = self.db.all(
            "SELECT * FROM tasks WHERE job = ? AND site = ? AND state = 'open' ORDER BY round, idx", job, site
        )
        return [to_task(row) for row in rows]

    def dropped_tasks(self, job: str, site: str, limit: int) -> list[Task]:
        rows = self.db.all(
            "SELECT * FROM tasks WHERE job = ? AND site = ? AND state = 'dropped'"
            " ORDER BY round DESC, idx DESC LIMIT ?",
            *(job, site, limit),
        )
        return [to_task(row) for row in rows]

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
            "INSERT INTO boundaries VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job, round) DO UPDATE SET"
            " state = excluded.state, model = excluded.model, metrics = excluded.metrics, at = excluded.at",
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
        return to_boundary(row) if row else None

    def boundaries(self, job: str) -> list[Boundary]:
        return [to_boundary(row) for row in self.db.all("SELECT * FROM boundaries WHERE job = ? ORDER BY round", job)]

    # --- results that came after their round

    def bank(self, late: Late) -> None:
        self.db.run(
            "INSERT INTO late VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, site) DO UPDATE SET"
            " task = excluded.task, round = excluded.round, idx = excluded.idx, name = excluded.name,"
            " meta = excluded.meta, result = excluded.result, state = excluded.state",
            *(late.job, late.site, late.task, late.round, late.index, late.name, _json(late.meta), late.result),
            "used" if late.used else "banked",
        )

    def late(self, job: str, site: str) -> Late | None:
        row = self.db.one("SELECT * FROM late WHERE job = ? AND site = ?", job, site)
        return to_late(row) if row else None

    # --- metrics and events: committed in groups

    def add_metrics(self, job: str, site: str, items: Sequence[Mapping[str, Any]], at: int | None = None) -> None:
        for item in items:
            self.db.later(
                "INSERT INTO metrics (job, site, key, value, step, round, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(job, site, str(item["key"]), _number(item["value"]), _whole(item.get("step"))),
                *(_whole(item.get("round")), _number(item.get("time")) or time.time()),
            )
        if at is not None:
            self.db.later(
                "INSERT INTO metrics_at VALUES (?, ?, ?) ON CONFLICT (job, site) DO UPDATE SET at = excluded.at",
                *(job, site, at),
            )

    def metrics_at(self, job: str, site: str) -> int:
        self.db.flush()
        row = self.db.one("SELECT at FROM metrics_at WHERE job = ? AND site = ?", job, site)
        return int(row["at"]) if row else 0

    def _settle(self) -> None:
        """Before a read: what waits for a full disk is not seen yet."""
        with contextlib.suppress(StorageError):
            self.db.flush()

    def metrics(self, job: str, after: int = 0) -> list[dict[str, Any]]:
        self._settle()
        return [
            dict(row)
            for row in self.db.all(
                "SELECT number, site, key, value, step, round, at FROM metrics WHERE job = ? AND number > ?"
                " ORDER BY number",
                *(job, after),
            )
        ]

    def add_event(self, job: str, document: Mapping[str, Any]) -> None:
        self.db.later(
            "INSERT INTO events (job, at, document) VALUES (?, ?, ?)", job, time.time(), _json(dict(document))
        )

    def events(self, job: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        self._settle()
        rows = self.db.all("SELECT * FROM events WHERE job = ? AND number > ? ORDER BY number", job, after)
        return [(row["number"], {**json.loads(row["document"]), "at": row["at"]}) for row in rows]

    def close(self) -> None:
        self.db.close()


def _number(value: Any) -> float | None:
    """What a column of numbers takes; NaN, which SQLite can't hold, is None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and abs(number) < 2**63 else None
