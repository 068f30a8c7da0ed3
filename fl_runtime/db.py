"""A small durable database: numbered migrations, transactions from any thread, groups of small writes.

`Sqlite` is a file beside the blobs; `Postgres` (fl_runtime/postgres.py) is the same over a connection. Statements keep
to what both understand: `?` marks, `ON CONFLICT`, the types TEXT, INTEGER, REAL and BLOB, no rowid, no RETURNING.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError, StorageError

log = logging.getLogger("fedspan")

Row = Mapping[str, Any]
GROUP_S = 0.05  # so long a statement of `later()` may wait for others to share its commit
_GROUP_LIMIT = 200_000  # statements that wait; more than that means that nothing was committed for very long
_Statement = tuple[str, tuple[Any, ...]]


class Database(ABC):
    """One connection shared by threads; `tx()` serializes them. Nested `tx()` of one thread joins the outer one.

    Every method raises StorageError where the disk is full or the database does not answer: nothing of the
    transaction has happened then, and it may be tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._group: list[_Statement] = []
        self._after: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
        self._closed = False

    # --- what an implementation gives; called with the lock held

    @abstractmethod
    def _begin(self) -> None: ...
    @abstractmethod
    def _commit(self) -> None: ...
    @abstractmethod
    def _rollback(self) -> None: ...
    @abstractmethod
    def _change(self, sql: str, args: Sequence[Any]) -> int: ...
    @abstractmethod
    def _read(self, sql: str, args: Sequence[Any]) -> list[Row]: ...
    @abstractmethod
    def _disconnect(self) -> None: ...

    def _change_many(self, statements: Sequence[_Statement]) -> None:
        for sql, args in statements:
            self._change(sql, args)

    # --- transactions

    @contextmanager
    def tx(self) -> Iterator[None]:
        """All or nothing; on disk when the outermost one returns. What `later()` collected goes along."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            group = self._open()
            self._depth = 1
            try:
                yield
                self._depth = 0
                self._commit()
            except BaseException:
                self._depth = 0
                self._group[:0] = group
                self._after.clear()
                self._rollback()
                raise
            after, self._after = self._after, []
            for action in after:
                action()

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do it with the commit of the transaction, before another one begins; not at all if that fails."""
        with self._lock:
            if self._depth:
                self._after.append(action)
            else:
                action()

    def _open(self) -> list[_Statement]:
        """Begin, with the waiting group first: what was said before stays before."""
        if self._closed:
            raise StorageError("The database is closed")
        self._begin()
        group, self._group = self._group, []
        try:
            self._change_many(group)
        except StorageError:
            self._group[:0] = group
            self._rollback()
            raise
        except Exception:
            log.exception("%d statements can't be stored and are dropped", len(group))
            self._rollback()
            self._begin()
            group = []
        return group

    def run(self, sql: str, *args: Any) -> int:
        """Execute one statement (a transaction of its own outside `tx()`); the number of rows it changed."""
        with self.tx():
            return self._change(sql, args)

    def all(self, sql: str, *args: Any) -> list[Row]:
        with self._lock:
            return self._read(sql, args)

    def one(self, sql: str, *args: Any) -> Row | None:
        rows = self.all(sql, *args)
        return rows[0] if rows else None

    # --- groups

    def later(self, sql: str, *args: Any) -> None:
        """Execute with the next transaction, at the latest in `GROUP_S`: for what a crash may take the last 50 ms of.

        Within `tx()` it is part of that. The statement must not be able to fail on its values.

        Raises:
            TypeError: as `clean`: now, or it would take those that it waits with along.
        """
        args = tuple(clean(args))
        with self._lock:
            if self._depth:
                self._change(sql, args)
                return
            self._group.append((sql, args))
            if len(self._group) > _GROUP_LIMIT:
                del self._group[: _GROUP_LIMIT // 10]
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_groups, name="commits", daemon=True)
                self._flusher.start()
        self._wake.set()

    def flush(self) -> None:
        """Commit what `later()` collected."""
        with self._lock:
            if self._group and not self._depth:
                with self.tx():
                    pass

    def _flush_groups(self) -> None:
        failed = False
        while True:
            self._wake.wait()
            self._wake.clear()
            threading.Event().wait(1.0 if failed else GROUP_S)
            if self._closed:
                return
            try:
                self.flush()
                failed = False
            except Exception as error:
                if not failed:
                    log.error("metrics and events wait to be stored: %s", error)
                failed = True
                self._wake.set()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                with contextlib.suppress(StorageError):
                    self.flush()
                self._closed = True
                self._wake.set()
                self._disconnect()


_STORED = (str, int, float, bytes, bytearray, memoryview, type(None))


def clean(args: Sequence[Any]) -> list[Any]:
    """Text without what a database can't hold: half a surrogate pair, and NUL.

    Raises:
        TypeError: a value that no column takes, such as a mapping or a huge number out of somebody's message.
    """
    for arg in args:
        if not isinstance(arg, _STORED):
            raise TypeError(f"a {type(arg).__name__} is nothing that a database stores")
        if isinstance(arg, int) and not -(2**63) <= arg < 2**63:
            raise TypeError("a whole number of more than 64 bits is nothing that a database stores")
    return [
        arg.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        if isinstance(arg, str) and not (arg.isascii() and "\0" not in arg)
        else arg
        for arg in args
    ]


def too_new(where: str, have: int, known: int) -> FlError:
    """The database was written by a version of fedspan that comes after this one."""
    return FlError(
        f"{where} was written by a newer version of fedspan",
        why=f"its schema is {have}, this version knows {known}",
        next_step="pip install --upgrade fedspan",
    )


class Sqlite(Database):
    """One file: WAL, synchronous=FULL."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """`migrations[i]` brings schema version i to i + 1.

        Raises:
            FlError: the file is of a newer version, or no database.
        """
        super().__init__()
        self.path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        except sqlite3.Error as error:
            raise _storage_error(error, self.path) from None
        try:
            self._connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(migrations)
        except sqlite3.Error as error:
            self._connection.close()
            raise _storage_error(error, self.path) from None
        except FlError:
            self._connection.close()
            raise

    def _migrate(self, migrations: Sequence[str]) -> None:
        have = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if have > len(migrations):
            raise too_new(str(self.path), have, len(migrations))
        for number in range(have, len(migrations)):
            script = f"BEGIN IMMEDIATE;{migrations[number]};PRAGMA user_version={number + 1};COMMIT;"
            self._connection.executescript(script)

    def _begin(self) -> None:
        self._change("BEGIN IMMEDIATE", ())

    def _commit(self) -> None:
        self._change("COMMIT", ())

    def _rollback(self) -> None:
        if self._connection.in_transaction:  # a full disk has ended it already
            self._connection.execute("ROLLBACK")

    def _change(self, sql: str, args: Sequence[Any]) -> int:
        try:
            return self._connection.execute(sql, clean(args)).rowcount
        except sqlite3.OperationalError as error:
            raise _storage_error(error, self.path) from None

    def _read(self, sql: str, args: Sequence[Any]) -> list[Row]:
        rows: list[Any]
        try:
            rows = self._connection.execute(sql, clean(args)).fetchall()
        except sqlite3.OperationalError as error:
            raise _storage_error(error, self.path) from None
        return rows

    def _disconnect(self) -> None:
        self._connection.close()


def _storage_error(error: sqlite3.Error, path: Path) -> Exception:
    """A full or failing disk as what it is; anything else (a wrong statement) as it came."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and any(
        words in text for words in ("disk is full", "disk I/O", "unable to open", "readonly", "locked")
    ):
        return StorageError(f"{path} can't be written", why=text, next_step=f"df -h {path.parent}")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
        return FlError(f"{path} is no database", why=text, next_step=f"restore {path} from a backup")
    return error
