"""The hub's tables, as numbered migrations that SQLite and PostgreSQL both take.

An entry is never changed once it was released; what is new is a new entry at the end. `INTEGER PRIMARY KEY
AUTOINCREMENT`, `WITHOUT ROWID` and the types are translated for PostgreSQL (fl_runtime/postgres.py).
"""

from __future__ import annotations

from fl_runtime.blobs import BLOB_SCHEMA

_FIRST = (
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

# Metrics keep their order without a rowid; what of a site's metrics is here; results that came after their round.
_SECOND = """
ALTER TABLE metrics RENAME TO metrics_1;
CREATE TABLE metrics (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, site TEXT, key TEXT, value REAL, step INTEGER, round INTEGER,
    at REAL
);
INSERT INTO metrics (job, site, key, value, step, round, at)
    SELECT job, site, key, value, step, round, at FROM metrics_1;
DROP TABLE metrics_1;
CREATE INDEX metrics_job_number ON metrics (job, number);
CREATE TABLE metrics_at (job TEXT, site TEXT, at INTEGER NOT NULL, PRIMARY KEY (job, site)) WITHOUT ROWID;
CREATE TABLE late (
    job TEXT, site TEXT, task TEXT, round INTEGER, idx INTEGER, name TEXT, meta TEXT, result BLOB, state TEXT,
    PRIMARY KEY (job, site)
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""

MIGRATIONS = (_FIRST, _SECOND)
