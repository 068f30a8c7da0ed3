"""Blobs on one machine: rows in the owner's database, files beside it.

Order of writing: file, fdatasync, rename, fsync of the folder; then one transaction with the row and its reference.
Blobs of at most 64 KiB lie in the row. A blob lives while it has references; `collect()` unlinks the rest, and what
lies in the folder without a row (a crash between rename and commit) goes at the next start.

What can be fetched again (a task's payload on a site) needs no sync: such a row carries the boot in which it was
written, and is forgotten after a reboot.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from pathlib import Path

from fl_runtime.blobs.incoming import Incoming
from fl_runtime.blobs.manifest import Manifest, of_bytes, of_file
from fl_runtime.blobs.pool import Pool
from fl_runtime.db import Database
from fl_runtime.names import INLINE_LIMIT
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
        self._pool = Pool(folder / "pool")
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

    def new_spool_file(self, size: int) -> Path:
        """A file to be written over and cut to its length; then hand it to `stage_file`."""
        path = self.spool / secrets.token_hex(12)
        self._pool.take(path, size)
        return path

    def recycle(self, path: Path) -> None:
        """A file of the spool folder that nobody needs."""
        self._pool.give(path)

    # --- writing: stage (files), then register (row and reference) in the caller's transaction

    def stage_bytes(self, data: bytes) -> tuple[Manifest, bytes | None]:
        """Make content ready to be registered: what `register` wants."""
        manifest = of_bytes(data)
        if len(data) <= INLINE_LIMIT:
            return manifest, data
        path = self.new_spool_file(len(data))
        with open(path, "rb+", buffering=0) as file:
            file.write(data)
            file.truncate(len(data))
        self._settle(path, manifest)
        return manifest, None

    def stage_file(self, path: Path) -> tuple[Manifest, bytes | None]:
        """Take over a finished file from the spool folder (same file system): it is hashed, synced and renamed."""
        if path.stat().st_size <= INLINE_LIMIT:
            data = path.read_bytes()
            self._pool.give(path)
            return of_bytes(data), data
        manifest = of_file(path)
        self._settle(path, manifest)
        return manifest, None

    def _settle(self, path: Path, manifest: Manifest) -> None:
        target = self.path(manifest.id)
        with self._lock:
            self._pinned[manifest.id] = self._pinned.get(manifest.id, 0) + 1
        if target.exists() and self.has(manifest.id):
            self._pool.give(path)
            return
        with open(path, "rb+") as file:
            os.fdatasync(file.fileno())
        os.rename(path, target)
        _sync_folder(self.folder)

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
        self._db.run("INSERT INTO blob_refs (blob, owner) VALUES (?, ?) ON CONFLICT DO NOTHING", blob, owner)

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
                self._pool.give(self.path(row["id"]))
        return len(rows)

    def _sweep(self) -> None:
        with self._db.tx():
            for row in self._db.all("SELECT id FROM blobs WHERE boot IS NOT NULL AND boot != ?", boot_id()):
                self._db.run("DELETE FROM blob_refs WHERE blob = ?", row["id"])
                self._db.run("DELETE FROM blobs WHERE id = ?", row["id"])
        known = {row["id"].hex() for row in self._db.all("SELECT id FROM blobs WHERE inline IS NULL")}
        wanted = {row["id"].hex() for row in self._db.all("SELECT id FROM incoming")}
        for folder, keep in ((self.folder, known), (self.spool, set()), (self._incoming_dir, wanted)):
            for path in folder.iterdir():
                if path.name not in keep:
                    self._pool.give(path)

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
                found = Incoming(self._db, self._pool, manifest, self._incoming_dir / blob.hex())
                self._active[blob] = found
            found.add_owner(owner)
            return found

    def incoming(self, blob: bytes) -> Incoming | None:
        """A blob that is being received."""
        with self._lock:
            return self._active.get(blob)

    def finish(self, incoming: Incoming, *, durable: bool = True) -> None:
        """All leaves are here: make it a blob. Not `durable`: what a reboot loses can be fetched again."""
        manifest = incoming.manifest
        incoming.close(sync=durable)
        with self._finishing:
            with self._lock:
                if self._active.get(manifest.id) is not incoming:
                    return
            inline: bytes | None = None
            if manifest.length <= INLINE_LIMIT:
                inline = incoming.path.read_bytes()
            else:
                os.rename(incoming.path, self.path(manifest.id))
                if durable:
                    _sync_folder(self.folder)
            with self._db.tx():
                with self._lock:
                    del self._active[manifest.id]
                for owner in incoming.owners:
                    self.register(manifest, inline, owner, None if durable or inline is not None else boot_id())
                self._db.run("DELETE FROM incoming WHERE id = ?", manifest.id)
            if inline is not None:
                self._pool.give(incoming.path)

    def abandon(self, owner_prefix: str) -> None:
        """Forget what is on its way in for nobody but owners with this prefix."""
        with self._db.tx():
            for row in self._db.all("SELECT id, length, leaves, owners FROM incoming"):
                if not all(owner.startswith(owner_prefix) for owner in json.loads(row["owners"])):
                    continue
                with self._lock:
                    active = self._active.pop(row["id"], None)
                if active is not None:
                    active.close(sync=False)
                self._db.run("DELETE FROM incoming WHERE id = ?", row["id"])
                self._pool.give(self._incoming_dir / row["id"].hex())


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
