"""One SQLite file: opened durable (WAL, synchronous=FULL), migrated by numbered steps, transactions from any thread."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError

Row = sqlite3.Row


class Database:
    """A connection shared by threads; `tx()` serializes them. Nested `tx()` of one thread joins the outer one."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """`migrations[i]` brings schema version i to i + 1."""
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._migrate(migrations)

    def _migrate(self, migrations: Sequence[str]) -> None:
        have = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if have > len(migrations):
            raise FlError(
                f"{self.path} was written by a newer version of fedspan",
                why=f"its schema is {have}, this version knows {len(migrations)}",
                next_step="install the newer version again",
            )
        for number in range(have, len(migrations)):
            script = f"BEGIN IMMEDIATE;{migrations[number]};PRAGMA user_version={number + 1};COMMIT;"
            self._connection.executescript(script)

    @contextmanager
    def tx(self) -> Iterator[None]:
        """All or nothing; on disk when the outermost one returns."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def run(self, sql: str, *args: Any) -> int:
        """Execute one statement (a transaction of its own outside `tx()`); the number of rows it changed."""
        with self._lock:
            return self._connection.execute(sql, args).rowcount

    def all(self, sql: str, *args: Any) -> list[Row]:
        with self._lock:
            return self._connection.execute(sql, args).fetchall()

    def one(self, sql: str, *args: Any) -> Row | None:
        with self._lock:
            row: Row | None = self._connection.execute(sql, args).fetchone()
            return row

    def close(self) -> None:
        with self._lock:
            self._connection.close()
