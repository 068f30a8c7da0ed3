"""Blobs of a hub or an agent: what lies here (shelf.py), and what arrives from elsewhere."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from fl_runtime.blobs.incoming import Incoming
from fl_runtime.blobs.manifest import Manifest
from fl_runtime.blobs.shelf import Shelf
from fl_runtime.db import Database
from fl_runtime.durable import sync_folder
from fl_runtime.errors import StorageError
from fl_runtime.names import INLINE_LIMIT
from fl_runtime.processes import boot_id


class BlobStore(Shelf):
    """Every method may be called from any thread; those that write raise StorageError."""

    def __init__(self, folder: Path, db: Database, quota: Callable[[], int | None] = lambda: None) -> None:
        super().__init__(folder, db, quota)
        self._finishing = threading.Lock()
        self._active: dict[bytes, Incoming] = {}

    def receive(
        self, manifest: Manifest, owner: str, *, sender: str = "", known: bool = True, durable: bool = True
    ) -> Incoming | None:
        """Begin or continue to receive a blob. None when it is here already (then `owner` refers to it).

        Args:
            sender: who sends it, where several might send the same: nobody goes on with what another one sends.
            known: the sender may know that the content is here; else it is received again and thrown away.
            durable: False for what can be fetched again: a reboot may take it.

        Raises:
            QuotaError, DiskFullError: there is no room for it.
        """
        blob, key = manifest.id, _key(manifest.id, sender)
        with self._db.tx(), self._lock:
            if known and self.has(blob):
                self.add_ref(blob, owner)
                return None
            found = self._active.get(key)
            if found is None:
                found = self._active[key] = self._begin(manifest, key, durable)
            found.add_owner(owner)
            return found

    def _begin(self, manifest: Manifest, key: bytes, durable: bool) -> Incoming:
        path = self.arriving(key, durable)
        if not path.exists():
            self.space.check(manifest.length)
        found = Incoming(self._db, self._pool, manifest, path, key=key, durable=durable)
        try:
            found.allocate(self.space)
        except StorageError:
            found.close(sync=False)
            path.unlink(missing_ok=True)
            raise
        return found

    def incoming(self, blob: bytes, sender: str = "") -> Incoming | None:
        """A blob that is being received."""
        with self._lock:
            return self._active.get(_key(blob, sender))

    def finish(self, incoming: Incoming) -> None:
        """All leaves are here: make it a blob. Where that fails it is still on its way in, and may be finished again.

        Raises:
            StorageError: it can't be stored now.
        """
        try:
            incoming.close(sync=incoming.durable)
            with self._finishing:
                self._finish(incoming)
        except OSError as error:
            raise StorageError(
                "A blob can't be stored", why=str(error), next_step=f"df -h {self.folder}, and free disk space"
            ) from None

    def _finish(self, incoming: Incoming) -> None:
        manifest, durable = incoming.manifest, incoming.durable
        inline: bytes | None = None
        with self._db.tx(), self._lock:  # whoever abandons it does so before this or after it
            if self._active.get(incoming.key) is not incoming:
                return
            if manifest.length <= INLINE_LIMIT:
                inline = incoming.path.read_bytes()
            elif not incoming.settled:
                if self._lies_here(manifest.id, durable):
                    self._pool.give(incoming.path)  # others refer to the one that is here: it stays as it is
                else:
                    os.rename(incoming.path, self.path(manifest.id))
                self._pinned[manifest.id] = self._pinned.get(manifest.id, 0) + 1
                incoming.settled = True
        if inline is None and durable:
            sync_folder(self.folder)
        with self._db.tx():  # receive() and abandon() need a transaction too
            with self._lock:
                if self._active.get(incoming.key) is not incoming:
                    return
            first, *others = sorted(incoming.owners)
            self.register(manifest, inline, first, None if durable or inline is not None else boot_id())
            for owner in others:
                self.add_ref(manifest.id, owner)
            self._db.run("DELETE FROM incoming WHERE id = ?", incoming.key)
            self._db.afterwards(lambda: self._no_more(incoming))
        if inline is not None:
            self._pool.give(incoming.path)

    def _no_more(self, incoming: Incoming) -> None:
        with self._lock:
            self._active.pop(incoming.key, None)

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
                    if active.settled:  # its file lies among the blobs
                        self._unpin(active.manifest.id)
                        with self._lock:
                            self._doomed.append((0.0, active.manifest.id))
                self._db.run("DELETE FROM incoming WHERE id = ?", row["id"])
                for durable in (True, False):
                    self._pool.give(self.arriving(bytes(row["id"]), durable))


def _key(blob: bytes, sender: str) -> bytes:
    """Of what arrives: one row for each content and sender."""
    return blake3(blob + sender.encode()).digest() if sender else blob
