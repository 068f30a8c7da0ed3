"""A blob on its way in: leaves are verified on arrival, which ones are here is journalled."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from fl_runtime.blobs.manifest import Manifest
from fl_runtime.blobs.pool import Pool
from fl_runtime.blobs.space import Space
from fl_runtime.db import Database
from fl_runtime.errors import ProtocolError, StorageError
from fl_runtime.flush import STRETCH, Background, start_writing_back
from fl_runtime.names import LEAF

_ENTRIES = 1024  # journal entries of one blob, at most: a bitmap of terabytes is not written for each 64 MiB

_journals = Background("journal")
_SMALL = 64 * 1024


class Incoming:
    """A blob of which some leaves are here; a break costs at most what came since the last entry in the journal.

    Any number of writers may fill ranges at once, also the same: only what has been verified is written, and once.
    """

    def __init__(
        self, db: Database, pool: Pool, manifest: Manifest, path: Path, *, key: bytes = b"", durable: bool = True
    ) -> None:
        """`key`: of its row, the blob's id by default. Not `durable`: what a reboot loses can be fetched again, so
        nothing waits for the disk."""
        self.manifest = manifest
        self.path = path
        self.key = key or manifest.id
        self.durable = durable
        self.settled = False  # its file lies among the blobs already; only its row is not there yet
        self.owners: set[str] = set()
        self._db = db
        self._lock = threading.Lock()
        self._journalling = threading.Lock()
        self._dirty: list[tuple[int, int]] = []  # (offset, bytes) of leaves that came since the last flush
        self._unsynced = 0
        self._every = max(STRETCH, manifest.length // _ENTRIES)
        row = db.one("SELECT have, owners FROM incoming WHERE id = ?", self.key)
        if row is not None and path.exists():
            self._have = bytearray(row["have"])
            self.owners.update(json.loads(row["owners"]))
        else:
            self._have = bytearray(manifest.count)
        self._journalled = bytes(self._have)
        self._left = self._have.count(0)
        try:
            if not path.exists():
                pool.take(path, manifest.length)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._fd, manifest.length)
        except OSError as error:
            raise StorageError(
                "A blob can't be received", why=str(error), next_step=f"df -h {path.parent}, and free disk space"
            ) from None

    def add_owner(self, owner: str) -> None:
        """Who will refer to the blob; journalled, with what is on disk for certain."""
        self.owners.add(owner)
        self._db.run(
            "INSERT INTO incoming (id, length, leaves, have, owners) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET have = excluded.have, owners = excluded.owners",
            *(self.key, self.manifest.length, self.manifest.leaves, self._journalled),
            json.dumps(sorted(self.owners)),
        )

    def missing(self) -> list[tuple[int, int]]:
        """Ranges (first leaf, count) that are not here yet."""
        ranges: list[tuple[int, int]] = []
        with self._lock:
            at = self._have.find(0)
            while at >= 0:
                end = self._have.find(1, at)
                end = end if end >= 0 else len(self._have)
                ranges.append((at, end - at))
                at = self._have.find(0, end)
        return ranges

    def writer(self, first: int, count: int) -> LeafWriter:
        """Takes the chunks of a range of leaves, in order."""
        if first < 0 or count < 1 or first + count > self.manifest.count:
            raise ProtocolError("A range lies outside of its blob", why=f"{first}+{count} of {self.manifest.count}")
        return LeafWriter(self, first, count)

    def _write(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
        done = os.pwritev(fd, pieces, offset)
        data = memoryview(b"".join(pieces))[done:] if done < sum(map(len, pieces)) else None
        while data:
            more = os.pwrite(fd, data, offset + done)
            data, done = data[more:], done + more

    def arrived(self, index: int, pieces: Sequence[bytes | bytearray]) -> None:
        """A leaf came whole and its hash was right: write it, unless it is here."""
        size = self.manifest.size(index)
        with self._lock:
            if self._have[index]:
                return
            fd = os.dup(self._fd)  # whoever brings the same leaf may complete, and close, the blob meanwhile
        try:
            self._write(fd, pieces, index * LEAF)
        finally:
            os.close(fd)
        with self._lock:
            if self._have[index]:
                return
            self._have[index] = 1
            self._left -= 1
            self._unsynced += size
            last = self._dirty[-1] if self._dirty else None
            if last is not None and sum(last) == index * LEAF:
                self._dirty[-1] = (last[0], last[1] + size)
            else:
                self._dirty.append((index * LEAF, size))
            if self._unsynced < self._every or not self._left:
                return
            dirty, self._dirty = self._dirty, []
            unsynced, self._unsynced = self._unsynced, 0
        for offset, length in dirty if self.durable else ():
            start_writing_back(self._fd, offset, length)
        if not _journals.do(self.journal):
            with self._lock:
                self._unsynced += unsynced

    def journal(self) -> None:
        """Sync what came, then say so in the database."""
        with self._journalling:
            with self._lock:
                if self._fd < 0 or not self._left:
                    return  # a complete one becomes a blob at once
                have = bytes(self._have)
                self._unsynced = 0
                fd = os.dup(self._fd)
            try:
                if self.durable:
                    os.fdatasync(fd)
            finally:
                os.close(fd)
            self._db.run("UPDATE incoming SET have = ? WHERE id = ?", have, self.key)
            self._journalled = have

    @property
    def complete(self) -> bool:
        with self._lock:
            return not self._left

    def allocate(self, space: Space) -> None:
        """Take the disk that it needs.

        Raises:
            DiskFullError: there is not enough.
        """
        space.allocate(self._fd, self.manifest.length)

    def close(self, sync: bool = True) -> None:
        with self._lock:
            if self._fd >= 0:
                if sync:
                    os.fdatasync(self._fd)
                os.close(self._fd)
                self._fd = -1


class LeafWriter:
    """Collects arriving chunks to leaves (in memory, one at a time); one counts when its hash is the manifest's."""

    def __init__(self, incoming: Incoming, first: int, count: int) -> None:
        self._incoming = incoming
        self._index = first
        self._end = first + count
        self._begin()
        self.leaves = 0

    def _begin(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._hasher = blake3()
        self._filled = 0

    def take(self, chunk: bytes) -> None:
        """One chunk, which must not cross the border of a leaf.

        Raises:
            ProtocolError: the chunk does not fit, or the leaf's hash is wrong.
            OSError: the leaf can't be written.
        """
        if self._index >= self._end:
            raise ProtocolError("More bytes came than were announced")
        size = self._incoming.manifest.size(self._index)
        end = self._filled + len(chunk)
        if not chunk or end > size:
            raise ProtocolError("A chunk crosses the border of its leaf")
        self._keep(chunk)
        self._hasher.update(chunk)
        self._filled = end
        if end == size:
            if self._hasher.digest() != self._incoming.manifest.leaf(self._index):
                why = f"leaf {self._index} has another hash than its manifest says"
                raise ProtocolError("A leaf arrived damaged", why=why)
            self._incoming.arrived(self._index, self._pieces)
            self._index += 1
            self.leaves += 1
            self._begin()

    def _keep(self, chunk: bytes) -> None:
        """As it came, without a copy; small ones are gathered, for each object costs something, too."""
        last = self._pieces[-1] if self._pieces else None
        if last is None or len(last) >= _SMALL:
            self._pieces.append(chunk)
        elif isinstance(last, bytearray):
            last += chunk
        else:
            self._pieces[-1] = bytearray(last) + chunk
