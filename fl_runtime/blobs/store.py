"""Blobs on one machine: rows in the owner's database, files beside it.

Order of writing: file, fdatasync, rename, fsync of the folder; then one transaction with the row and its reference.
Blobs of at most 64 KiB lie in the row. A blob lives while it has references; `collect()` unlinks the rest, and what
lies in the folder without a row (a crash between rename and commit) goes at the next start.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from blake3 import blake3

from fl_runtime.blobs.manifest import Manifest, of_bytes, of_file
from fl_runtime.db import Database
from fl_runtime.errors import FlError, ProtocolError
from fl_runtime.names import INLINE_LIMIT, LEAF

BLOB_SCHEMA = """
CREATE TABLE blobs (id BLOB PRIMARY KEY, length INTEGER NOT NULL, leaves BLOB NOT NULL, inline BLOB);
CREATE TABLE blob_refs (
    blob BLOB NOT NULL REFERENCES blobs(id), owner TEXT NOT NULL, PRIMARY KEY (blob, owner)
) WITHOUT ROWID;
CREATE INDEX blob_refs_owner ON blob_refs(owner);
CREATE TABLE incoming (id BLOB PRIMARY KEY, length INTEGER NOT NULL, leaves BLOB NOT NULL, have BLOB NOT NULL);
"""
_JOURNAL_EVERY = 64 * 1024 * 1024


class BlobStore:
    """Blobs of a hub or an agent. Every method may be called from any thread."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder = folder / "blobs"
        self.spool = folder / "spool"
        self._incoming_dir = folder / "incoming"
        self._db = db
        self._lock = threading.Lock()  # taken inside a transaction, never around one
        self._finishing = threading.Lock()
        self._active: dict[bytes, Incoming] = {}
        self._pinned: dict[bytes, int] = {}  # staged, not registered yet: not to be collected
        for path in (self.folder, self.spool, self._incoming_dir):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    # --- reading

    def manifest(self, blob: bytes) -> Manifest | None:
        row = self._db.one("SELECT length, leaves FROM blobs WHERE id = ?", blob)
        return Manifest(row["length"], row["leaves"]) if row else None

    def has(self, blob: bytes) -> bool:
        return self._db.one("SELECT 1 FROM blobs WHERE id = ?", blob) is not None

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

    def new_spool_file(self) -> Path:
        """A name for a file that is being made; hand it to `stage_file`."""
        return self.spool / secrets.token_hex(12)

    # --- writing: stage (files), then register (row and reference) in the caller's transaction

    def stage_bytes(self, data: bytes) -> tuple[Manifest, bytes | None]:
        """Make content ready to be registered: what `register` wants."""
        manifest = of_bytes(data)
        if len(data) <= INLINE_LIMIT:
            return manifest, data
        path = self.new_spool_file()
        path.write_bytes(data)
        self._settle(path, manifest)
        return manifest, None

    def stage_file(self, path: Path) -> tuple[Manifest, bytes | None]:
        """Take over a finished file from the spool folder (same file system): it is hashed, synced and renamed."""
        if path.stat().st_size <= INLINE_LIMIT:
            data = path.read_bytes()
            path.unlink()
            return of_bytes(data), data
        manifest = of_file(path)
        self._settle(path, manifest)
        return manifest, None

    def _settle(self, path: Path, manifest: Manifest) -> None:
        target = self.path(manifest.id)
        with self._lock:
            self._pinned[manifest.id] = self._pinned.get(manifest.id, 0) + 1
        if target.exists() and self.has(manifest.id):
            path.unlink()
            return
        with open(path, "rb+") as file:
            os.fdatasync(file.fileno())
        os.rename(path, target)
        _sync_folder(self.folder)

    def register(self, manifest: Manifest, inline: bytes | None, owner: str) -> bytes:
        """Row and reference; call inside `tx()` together with what refers to the blob. Returns its id."""
        blob = manifest.id
        self._db.run(
            "INSERT OR IGNORE INTO blobs (id, length, leaves, inline) VALUES (?, ?, ?, ?)",
            blob,
            manifest.length,
            manifest.leaves,
            inline,
        )
        self.add_ref(blob, owner)
        if inline is None:
            with self._lock:
                left = self._pinned.pop(blob, 0) - 1
                if left > 0:
                    self._pinned[blob] = left
        return blob

    def put(self, data: bytes, owner: str) -> bytes:
        """Store and refer at once."""
        manifest, inline = self.stage_bytes(data)
        with self._db.tx():
            return self.register(manifest, inline, owner)

    def add_ref(self, blob: bytes, owner: str) -> None:
        self._db.run("INSERT OR IGNORE INTO blob_refs (blob, owner) VALUES (?, ?)", blob, owner)

    def drop_refs(self, owner_prefix: str) -> None:
        """Drop the references of one owner (or, ending in `:`, of all under it)."""
        if owner_prefix.endswith(":"):
            end = owner_prefix[:-1] + ";"  # ";" follows ":" in ASCII
            self._db.run("DELETE FROM blob_refs WHERE owner >= ? AND owner < ?", owner_prefix, end)
        else:
            self._db.run("DELETE FROM blob_refs WHERE owner = ?", owner_prefix)

    def collect(self) -> int:
        """Forget blobs without references and unlink their files; how many."""
        with self._db.tx():  # new references need a transaction too, so none appears between here and the unlink
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
        for row in rows:
            if row["filed"] and not self.has(row["id"]):
                self.path(row["id"]).unlink(missing_ok=True)
        return len(rows)

    def _sweep(self) -> None:
        known = {row["id"].hex() for row in self._db.all("SELECT id FROM blobs WHERE inline IS NULL")}
        for path in self.folder.iterdir():
            if path.name not in known:
                path.unlink()
        for path in self.spool.iterdir():
            path.unlink()
        wanted = {row["id"].hex() for row in self._db.all("SELECT id FROM incoming")}
        for path in self._incoming_dir.iterdir():
            if path.name not in wanted:
                path.unlink()

    # --- arriving from elsewhere

    def receive(self, manifest: Manifest, owner: str) -> Incoming | None:
        """Begin or continue to receive a blob. None when it is here already (then `owner` refers to it)."""
        blob = manifest.id
        with self._db.tx(), self._lock:
            if self.has(blob):
                self.add_ref(blob, owner)
                return None
            found = self._active.get(blob)
            if found is None:
                found = Incoming(self, self._db, manifest, self._incoming_dir / blob.hex())
                self._active[blob] = found
            found.owners.add(owner)
            return found

    def incoming(self, blob: bytes) -> Incoming | None:
        """A blob that is being received."""
        with self._lock:
            return self._active.get(blob)

    def finish(self, incoming: Incoming) -> None:
        """All leaves are here: make it a blob."""
        manifest = incoming.manifest
        incoming.close()  # syncs
        with self._finishing:
            with self._lock:
                if self._active.get(manifest.id) is not incoming:
                    return
            inline: bytes | None = None
            if manifest.length <= INLINE_LIMIT:
                inline = incoming.path.read_bytes()
            else:
                os.rename(incoming.path, self.path(manifest.id))
                _sync_folder(self.folder)
            with self._db.tx():
                with self._lock:
                    del self._active[manifest.id]
                for owner in incoming.owners:
                    self.register(manifest, inline, owner)
                self._db.run("DELETE FROM incoming WHERE id = ?", manifest.id)
            if inline is not None:
                incoming.path.unlink()


class Incoming:
    """A blob of which some leaves are here. Which ones is journalled, so that a break costs at most what came since."""

    def __init__(self, store: BlobStore, db: Database, manifest: Manifest, path: Path) -> None:
        self.manifest = manifest
        self.path = path
        self.owners: set[str] = set()
        self._store = store
        self._db = db
        self._lock = threading.Lock()
        self._unsynced = 0
        blob = manifest.id
        row = db.one("SELECT have FROM incoming WHERE id = ?", blob)
        if row is not None and path.exists():
            self._have = bytearray(row["have"])
        else:
            self._have = bytearray(manifest.count)
            db.run(
                "INSERT OR REPLACE INTO incoming (id, length, leaves, have) VALUES (?, ?, ?, ?)",
                blob,
                manifest.length,
                manifest.leaves,
                bytes(self._have),
            )
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._fd, manifest.length)
        except OSError as error:
            raise FlError("A blob can't be received", why=str(error), next_step="free disk space") from None

    def missing(self) -> list[tuple[int, int]]:
        """Ranges (first leaf, count) that are not here yet."""
        ranges: list[tuple[int, int]] = []
        with self._lock:
            for index, have in enumerate(self._have):
                if have:
                    continue
                if ranges and sum(ranges[-1]) == index:
                    ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
                else:
                    ranges.append((index, 1))
        return ranges

    def writer(self, first: int, count: int) -> LeafWriter:
        """Takes the chunks of a range of leaves, in order."""
        if first < 0 or count < 1 or first + count > self.manifest.count:
            raise ProtocolError("A range lies outside of its blob", why=f"{first}+{count} of {self.manifest.count}")
        return LeafWriter(self, first, count)

    def write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view = view[done:]
            offset += done

    def arrived(self, index: int) -> None:
        """A leaf is written and its hash was right."""
        with self._lock:
            self._have[index] = 1
            self._unsynced += self.manifest.size(index)
            due = self._unsynced >= _JOURNAL_EVERY
        if due:
            self.journal()

    def journal(self) -> None:
        """Sync what came, then say so in the database."""
        with self._lock:
            if self._unsynced == 0 or self._fd < 0:
                return
            have = bytes(self._have)
            self._unsynced = 0
            os.fdatasync(self._fd)
            self._db.run("UPDATE incoming SET have = ? WHERE id = ?", have, self.manifest.id)

    @property
    def complete(self) -> bool:
        with self._lock:
            return all(self._have)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.fdatasync(self._fd)
                os.close(self._fd)
                self._fd = -1


class LeafWriter:
    """Writes arriving chunks and hashes them on the way; a leaf counts when its hash is the manifest's."""

    def __init__(self, incoming: Incoming, first: int, count: int) -> None:
        self._incoming = incoming
        self._index = first
        self._end = first + count
        self._hasher = blake3()
        self._filled = 0
        self.leaves = 0

    def take(self, chunk: bytes) -> None:
        """One chunk, which must not cross the border of a leaf.

        Raises:
            ProtocolError: the chunk does not fit, or the leaf's hash is wrong.
        """
        if self._index >= self._end:
            raise ProtocolError("More bytes came than were announced")
        size = self._incoming.manifest.size(self._index)
        if not chunk or self._filled + len(chunk) > size:
            raise ProtocolError("A chunk crosses the border of its leaf")
        self._incoming.write(chunk, self._index * LEAF + self._filled)
        self._hasher.update(chunk)
        self._filled += len(chunk)
        if self._filled == size:
            if self._hasher.digest() != self._incoming.manifest.leaf(self._index):
                raise ProtocolError(
                    "A leaf arrived damaged", why=f"leaf {self._index} has another hash than its manifest says"
                )
            self._incoming.arrived(self._index)
            self._index += 1
            self.leaves += 1
            self._hasher, self._filled = blake3(), 0


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
