"""The ledger: what was deployed where, how far it came, and in which realm. SQLite in `.fedspan/ledger.db`.

A ledger belongs to one realm: the real clouds, or one life of one sandbox. Every step is one committed transaction, so
that what `up` had done is known after any crash.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployer.errors import RealmError
from deployer.ledger_rows import (
    MIGRATIONS,
    NOTHING_THERE,
    PHASES,
    SCHEMA,
    SCHEMA_VERSION,
    STOPPED,
    Event,
    Row,
    actor,
    event_of,
    row_of,
)

__all__ = ["NOTHING_THERE", "PHASES", "STOPPED", "Event", "Ledger", "Row", "check_realm"]


class Ledger:
    """Reads and writes one ledger; safe for the threads of one process.

    Args:
        path: the database; made, with its folder (0700), when it is first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verb = ""
        """The command that is at work, noted with every event."""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    # -- the database -------------------------------------------------------------------------------------------
    def exists(self) -> bool:
        """Whether anything was ever recorded."""
        return self.path.exists()

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
            self.path.chmod(0o600)
            connection.row_factory = sqlite3.Row
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            version = connection.execute("pragma user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                connection.close()
                raise RealmError(
                    f"the ledger {self.path} is of a newer fedspan", next_step="pip install --upgrade fedspan"
                )
            if version == 0:
                connection.executescript(f"begin immediate; {SCHEMA} pragma user_version = {SCHEMA_VERSION}; commit;")
            elif version < SCHEMA_VERSION:
                _migrate(connection)
            self._connection = connection
        return self._connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._open()
            connection.execute("begin immediate")
            try:
                yield connection
            except BaseException:
                connection.execute("rollback")
                raise
            connection.execute("commit")

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        if not self.exists():
            return []
        with self._lock:
            return self._open().execute(query, values).fetchall()

    # -- whose it is --------------------------------------------------------------------------------------------
    def meta(self, key: str) -> str | None:
        """A fact about the whole deployment."""
        rows = self._read("select value from meta where key = ?", key)
        return rows[0]["value"] if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Set a fact about the whole deployment."""
        with self._write() as connection:
            connection.execute("insert or replace into meta values (?, ?)", (key, value))

    def deployment(self) -> str:
        """The deployment's id, eight hex digits, made at the first call: the tag by which the clouds know it."""
        with self._write() as connection:
            connection.execute("insert or ignore into meta values ('deployment', ?)", (secrets.token_hex(4),))
            value: str = connection.execute("select value from meta where key = 'deployment'").fetchone()["value"]
            return value

    def realm(self) -> tuple[str, str] | None:
        """The realm it belongs to: kind and id; None before the first deployment."""
        kind, identity = self.meta("realm_kind"), self.meta("realm_id")
        return (kind, identity) if kind and identity else None

    def set_realm(self, kind: str, identity: str) -> None:
        """Bind the ledger to a realm."""
        with self._write() as connection:
            connection.execute("insert or replace into meta values ('realm_kind', ?)", (kind,))
            connection.execute("insert or replace into meta values ('realm_id', ?)", (identity,))

    # -- participants -------------------------------------------------------------------------------------------
    def participants(self) -> list[Row]:
        """All rows: the server first, then by name."""
        rows = self._read("select * from participant order by role != 'server', name")
        return [row_of(row) for row in rows]

    def participant(self, name: str) -> Row | None:
        """One row, or None."""
        rows = self._read("select * from participant where name = ?", name)
        return row_of(rows[0]) if rows else None

    def record(self, name: str, phase: str, *, resource: str = "", detail: str = "", **fields: Any) -> None:
        """A participant came to `phase`: update its row (made when new) and write the event, in one transaction.

        `fields` are columns: role, target, region, zone, size, address, ssh_port, ssh_user, outputs, usd_hour.
        """
        if "outputs" in fields:
            fields["outputs"] = json.dumps(dict(fields["outputs"]), sort_keys=True)
        now = time.time()
        with self._write() as connection:
            known = connection.execute("select phase from participant where name = ?", (name,)).fetchone()
            if known is None:
                blank = {"role": "site", "target": "", "outputs": "{}", **fields}
                row = {"name": name, "phase": phase, "detail": detail, "since": now, "changed": now, **blank}
                marks = ", ".join("?" * len(row))
                connection.execute(f"insert into participant ({', '.join(row)}) values ({marks})", tuple(row.values()))  # noqa: S608 (column names of this module)
            else:
                row = {"phase": phase, "detail": detail, "changed": now, **fields}
                if known["phase"] in NOTHING_THERE and phase not in NOTHING_THERE:
                    row["since"] = now
                sets = ", ".join(f"{column} = ?" for column in row)
                connection.execute(f"update participant set {sets} where name = ?", (*row.values(), name))  # noqa: S608 (as above)
            self._note(connection, now, name, phase, resource, detail)

    def event(
        self, participant: str, phase: str, resource: str = "", detail: str = "", at: float | None = None
    ) -> None:
        """Something happened (`at` a time before now) that changes no phase: a resource was made, updated, deleted."""
        with self._write() as connection:
            self._note(connection, time.time() if at is None else at, participant, phase, resource, detail)

    def _note(self, connection: sqlite3.Connection, *what: Any) -> None:
        columns = "at, participant, phase, resource, detail, who, verb"
        connection.execute(f"insert into event ({columns}) values (?, ?, ?, ?, ?, ?, ?)", (*what, actor(), self.verb))  # noqa: S608 (columns of this module)

    def events(self, participant: str | None = None, since: float = 0.0) -> list[Event]:
        """What happened, oldest first."""
        query = "select * from event where ? in ('', participant) and at >= ? order by id"
        return [event_of(row) for row in self._read(query, participant or "", since)]

    def forget(self, name: str) -> None:
        """A participant left the federation and nothing of it is there any more."""
        with self._write() as connection:
            connection.execute("delete from participant where name = ?", (name,))

    def forget_all(self) -> list[str]:
        """All participants go (their realm is dead); returns their names. Events and allowed addresses stay."""
        names = [row.name for row in self.participants()]
        with self._write() as connection:
            connection.execute("delete from participant")
            for kind in ("operation", "expires", "told", "idle"):
                connection.execute("delete from meta where key like ?", (f"{kind}:%",))
        return names

    def set_notes(self, name: str, notes: list[str]) -> None:
        """What the operator should know of a participant's machine, as its last `up` found it."""
        self.set_meta(f"notes:{name}", json.dumps(notes))

    def notes(self, name: str) -> list[str]:
        """The notes of the last `up`; none where nothing is there any more."""
        row = self.participant(name)
        found: list[str] = json.loads(self.meta(f"notes:{name}") or "[]")
        return found if row is not None and row.phase not in NOTHING_THERE else []

    # -- operations of the engine --------------------------------------------------------------------------------
    def begin_operation(self, stack: str) -> None:
        """An engine is let loose on a stack. Stays noted until `end_operation`: whoever finds it knows of a crash."""
        with self._write() as connection:
            connection.execute("insert or ignore into meta values (?, ?)", (f"operation:{stack}", str(time.time())))

    def end_operation(self, stack: str) -> None:
        """The engine ended well, or what it left was settled."""
        with self._write() as connection:
            connection.execute("delete from meta where key = ?", (f"operation:{stack}",))

    def unclean_since(self, stack: str) -> float | None:
        """When the first operation began that did not end well; seconds since the epoch, or None."""
        began = self.meta(f"operation:{stack}")
        return float(began) if began else None

    # -- who else may reach the server --------------------------------------------------------------------------
    def allow(self, site: str, cidr: str) -> bool:
        """Let `cidr` reach the server's port for `site`; False when it could already."""
        with self._write() as connection:
            cursor = connection.execute("insert or ignore into allowed values (?, ?, ?)", (site, cidr, time.time()))
            return cursor.rowcount > 0

    def disallow(self, site: str, cidr: str | None = None) -> list[str]:
        """Take back one network of `site`, or all; returns what was taken back."""
        gone = [entry for entry in self.allowed().get(site, []) if cidr in (None, entry)]
        with self._write() as connection:
            for entry in gone:
                connection.execute("delete from allowed where site = ? and cidr = ?", (site, entry))
        return gone

    def allowed(self) -> dict[str, list[str]]:
        """Networks that `fedspan allow` let in, by site."""
        result: dict[str, list[str]] = {}
        for row in self._read("select site, cidr from allowed order by site, cidr"):
            result.setdefault(row["site"], []).append(row["cidr"])
        return result


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring an older fedspan's ledger up, in one transaction; another process may have done so meanwhile."""
    connection.execute("begin immediate")
    version = connection.execute("pragma user_version").fetchone()[0]
    for old in range(version, SCHEMA_VERSION):
        for statement in MIGRATIONS[old]:
            connection.execute(statement)
    connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
    connection.execute("commit")


def check_realm(ledger: Ledger, kind: str, identity: str) -> list[str]:
    """Make sure that `ledger` may be used in this realm; bind it when it is free.

    Returns the names of participants that were forgotten because they lived in a sandbox that is gone.

    Raises:
        RealmError: something is deployed in the other kind of realm.
    """
    bound = ledger.realm()
    if bound == (kind, identity):
        return []
    there = [row for row in ledger.participants() if row.phase not in NOTHING_THERE]
    if bound is None or not there:
        ledger.set_realm(kind, identity)
        return []
    if bound[0] != kind:
        where = "the sandbox" if bound[0] == "sandbox" else "real clouds"
        raise RealmError(
            f"this federation is deployed in {where}",
            why="real and emulated clouds are never mixed in one ledger",
            next_step="fedspan --sandbox status" if bound[0] == "sandbox" else "fedspan status, without --sandbox",
        )
    forgotten = ledger.forget_all()
    ledger.set_realm(kind, identity)
    return forgotten
