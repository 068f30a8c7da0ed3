"""Blobs on one machine: rows in the owner's database, files beside it.

Order of writing: file, fdatasync, rename, fsync of the folder; then one transaction with the row and its reference.
Blobs of at most 64 KiB lie in the row. A blob lives while it has references; `collect()` unlinks the rest, and what
lies in the folder without a row (a crash between rename and commit) goes at the next start.

What can be fetched again (a task's payload on a site) needs no sync: such a row carries the boot in which it was
written, and is forgotten after a reboot.

Nothing is written without room for it: see blobs/space.py.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_runtime.blobs.manifest import Manifest, of_bytes, of_file
from fl_runtime.blobs.pool import Pool
from fl_runtime.blobs.refs import References
from fl_runtime.blobs.space import Space
from fl_runtime.db import Database
from fl_runtime.durable import sync_folder
from fl_runtime.errors import StorageError
from fl_runtime.flush import Syncing
from fl_runtime.names import INLINE_LIMIT
from fl_runtime.patience import again
from fl_runtime.processes import boot_id

BLOB_SCHEMA = """
CREATE TABLE blobs (id BLOB PRIMARY KEY, length INTEGER NOT NULL, leaves BLOB NOT NULL, inline BLOB, boot TEXT);
CREATE TABLE blob_refs (
    blob BLOB NOT NULL REFERENCES blobs(id), owner TEXT NOT NULL, PRIMARY KEY (blob, owner)
) WITHOUT ROWID;
CREATE INDEX blob_refs_owner ON blob_refs(owner);
CREATE TABLE incoming (
    id BLOB PRIMARY KEY, length INTEGER NOT NULL, leaves BLOB NOT NULL, have BLOB NOT NULL, owners TEXT NOT NULL
);
"""


Staged = tuple[Manifest, bytes | None]  # content that is ready to be registered; the bytes where they are few
UNLINK_AFTER_S = 5.0  # after its row went: whoever was told the path may be about to open it


class Shelf(References):
    """What lies here. Every method may be called from any thread; those that write raise StorageError."""

    def __init__(self, folder: Path, db: Database, quota: Callable[[], int | None] = lambda: None) -> None:
        """`quota`: bytes that all files may take; None = what the disk has."""
        self.folder = folder / "blobs"
        self.spool = folder / "spool"
        self.incoming_folder = folder / "incoming"
        super().__init__(db)
        self._lock = threading.Lock()  # taken inside a transaction, never around one
        self._doomed: list[tuple[float, bytes]] = []  # files whose rows are gone, and when they may go
        self._pinned: dict[bytes, int] = {}  # staged, not registered yet: not to be collected
        for path in (self.folder, self.spool, self.incoming_folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._pool = Pool(folder / "pool")
        self.space = Space((self.folder, self.spool, self.incoming_folder), self._pool, quota)
        self._sweep()

    # --- reading

    def manifest(self, blob: bytes) -> Manifest | None:
        row = self._db.one("SELECT length, leaves FROM blobs WHERE id = ?", blob)
        return Manifest(row["length"], row["leaves"]) if row else None

    def has(self, blob: bytes) -> bool:
        return self._db.one("SELECT 1 FROM blobs WHERE id = ?", blob) is not None

    def _lies_here(self, blob: bytes, durable: bool) -> bool:
        """Its file is a blob's already, and was synced if it is to be `durable`."""
        row = self._db.one("SELECT boot FROM blobs WHERE id = ?", blob)
        return row is not None and not (durable and row["boot"]) and self.path(blob).exists()

    def inline(self, blob: bytes) -> bytes | None:
        """The content, if it is small enough to lie in the row."""
        row = self._db.one("SELECT inline FROM blobs WHERE id = ?", blob)
        return row["inline"] if row else None

    def path(self, blob: bytes) -> Path:
        """Where the content of a larger blob lies. Never write there."""
        return self.folder / blob.hex()

    def read(self, blob: bytes) -> bytes:
        """The whole content: for small things such as bundles."""
        data = self.inline(blob)
        return data if data is not None else self.path(blob).read_bytes()

    def new_spool_file(self, size: int, job: str = "") -> Path:
        """A file to be written over and cut to its length; then hand it to `stage_file`.

        Args:
            job: whose program writes it: of what others have written it finds nothing there.

        Raises:
            QuotaError, DiskFullError: there is no room for `size` bytes.
        """
        self.space.check(size)
        path = self.spool / secrets.token_hex(12)
        self._pool.take(path, size, job)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.space.allocate(fd, size)
        except StorageError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        return path

    @contextmanager
    def spooled(self, size: int) -> Iterator[Path]:
        """A file as of `new_spool_file`; what has not become a blob by then goes at the end, also what a process that
        was ended has left beside it.

        Raises:
            QuotaError, DiskFullError: there is no room for `size` bytes.
        """
        path = self.new_spool_file(size)
        try:
            yield path
        finally:
            for left in self.spool.glob(f"{path.name}*"):
                self._pool.give(left)

    # --- writing: stage (files), then register (row and reference) in the caller's transaction

    def stage_bytes(self, data: bytes) -> Staged:
        """Make content ready to be registered: what `register` wants."""
        manifest = of_bytes(data)
        if len(data) <= INLINE_LIMIT:
            return manifest, data
        with self.spooled(len(data)) as path:
            with open(path, "rb+", buffering=0) as file:
                file.write(data)
                file.truncate(len(data))
            self._settle(path, manifest)
        return manifest, None

    def stage_file(self, path: Path) -> Staged:
        """Take over a finished file from the spool folder: it is hashed, synced, renamed; or still there on failure."""
        if path.stat().st_size <= INLINE_LIMIT:
            data = path.read_bytes()
            self._pool.give(path)
            return of_bytes(data), data
        with Syncing(path):
            manifest = of_file(path)
        self._settle(path, manifest, synced=True)
        return manifest, None

    def _pin(self, blob: bytes) -> None:
        with self._lock:
            self._pinned[blob] = self._pinned.get(blob, 0) + 1

    def _unpin(self, blob: bytes) -> None:
        with self._lock:
            left = self._pinned.pop(blob, 0) - 1
            if left > 0:
                self._pinned[blob] = left

    def _settle(self, path: Path, manifest: Manifest, *, synced: bool = False) -> None:
        target = self.path(manifest.id)
        self._pin(manifest.id)
        try:
            if self._lies_here(manifest.id, True):
                self._pool.give(path)
                return
            if not synced:
                with Syncing(path):
                    pass
            os.rename(path, target)
            path.unlink(missing_ok=True)  # a rename leaves both names where they are one file already: see below
            sync_folder(self.folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.link(target, path)  # no rename: somebody else may want the same content
            self.discard(manifest, None)
            raise

    def discard(self, manifest: Manifest, inline: bytes | None) -> None:
        """What was staged is not to be registered after all: its file goes, unless others want the same content."""
        if inline is not None:
            return
        self._unpin(manifest.id)
        with self._lock:
            if all(blob != manifest.id for _, blob in self._doomed):  # else it goes when whoever knew it is done
                self._doomed.append((time.monotonic(), manifest.id))
        self._bury_quietly()

    def register(self, manifest: Manifest, inline: bytes | None, owner: str, boot: str | None = None) -> bytes:
        """Row and reference; call inside `tx()` together with what refers to the blob. Returns its id.

        Args:
            boot: the content was not synced: after another boot it is not there.
        """
        blob = manifest.id
        self._db.run(
            "INSERT INTO blobs (id, length, leaves, inline, boot) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            *(blob, manifest.length, manifest.leaves, inline, boot),
        )
        if boot is None and inline is None:
            self._db.run("UPDATE blobs SET boot = NULL WHERE id = ? AND boot IS NOT NULL", blob)
        self.add_ref(blob, owner)
        if inline is None:
            self._db.afterwards(lambda: self._unpin(blob))
        return blob

    @contextmanager
    def registering(self, *staged: Staged) -> Iterator[Callable[[Staged, str], bytes]]:
        """A transaction in which what was staged is registered: `register(staged, owner)`, as `register` below.

        What it does not register is discarded at its end; when it fails, all of it.
        """
        left = list(staged)

        def register(one: Staged, owner: str) -> bytes:
            blob = self.register(*one, owner)
            left.remove(one)
            return blob

        try:
            with self._db.tx():
                yield register
        except BaseException:
            left[:] = staged  # they are pinned until a transaction has kept them
            raise
        finally:
            for one in left:
                self.discard(*one)

    def put(self, data: bytes, owner: str) -> bytes:
        """Store and refer at once."""
        staged = self.stage_bytes(data)
        with self.registering(staged) as register:
            return register(staged, owner)

    def collect(self, grace: float = UNLINK_AFTER_S) -> int:
        """Forget blobs without references, and free their files `grace` seconds later; how many.

        Args:
            grace: 0 where those who were told the paths are those who say that they are done. A file that somebody
                still has open or mapped is never written over.
        """
        with self._db.tx():  # new references need a transaction too, so none appears between here and the end
            with self._lock:
                pinned = set(self._pinned)
            rows = [
                row
                for row in self._db.all(
                    "SELECT id, inline IS NULL AS filed FROM blobs WHERE NOT EXISTS "
                    "(SELECT 1 FROM blob_refs WHERE blob = blobs.id)"
                )
                if row["id"] not in pinned
            ]
            for row in rows:
                self._db.run("DELETE FROM blobs WHERE id = ?", row["id"])
        due = time.monotonic() + grace
        with self._lock:
            self._doomed += [(due, bytes(row["id"])) for row in rows if row["filed"]]
            waiting = bool(self._doomed)
        if waiting:
            self._bury()
            if grace:
                again(self._bury_quietly, grace + 0.1)
        return len(rows)

    def _bury_quietly(self) -> None:
        with contextlib.suppress(StorageError):  # closed meanwhile, or a full disk: a later one does it
            self._bury()

    def _bury(self) -> None:
        """Free the files whose time has come, unless the same content has come back."""
        now = time.monotonic()
        with self._lock:
            if not any(due <= now for due, _ in self._doomed):
                return
        with self._db.tx(), self._lock:
            blobs = [blob for due, blob in self._doomed if due <= now]
            self._doomed = [entry for entry in self._doomed if entry[0] > now]
            for blob in blobs:
                if blob not in self._pinned and not self.has(blob):
                    self._pool.give(self.path(blob))

    def arriving(self, key: bytes, durable: bool) -> Path:
        """Where what is on its way lies. What is not synced carries the boot in its name: after another one it is not
        found."""
        return self.incoming_folder / (key.hex() if durable else f"{key.hex()}-{boot_id()}")

    def _sweep(self) -> None:
        with self._db.tx():
            for row in self._db.all("SELECT id FROM blobs WHERE boot IS NOT NULL AND boot != ?", boot_id()):
                self._db.run("DELETE FROM blob_refs WHERE blob = ?", row["id"])
                self._db.run("DELETE FROM blobs WHERE id = ?", row["id"])
        known = {row["id"].hex() for row in self._db.all("SELECT id FROM blobs WHERE inline IS NULL")}
        wanted = set()
        for row in self._db.all("SELECT id FROM incoming"):
            paths = [self.arriving(bytes(row["id"]), durable) for durable in (True, False)]
            wanted |= {path.name for path in paths}
            if not any(path.exists() for path in paths):  # it must not tell of the next file with this name
                self._db.run("DELETE FROM incoming WHERE id = ?", row["id"])
        for folder, keep in ((self.folder, known), (self.spool, set()), (self.incoming_folder, wanted)):
            for path in folder.iterdir():
                if path.name not in keep:
                    self._pool.give(path)
