"""A blob's manifest: its length and the BLAKE3 of each 4 MiB leaf. Its id is the hash of the manifest."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from fl_runtime.errors import ProtocolError
from fl_runtime.names import LEAF

_DOMAIN = b"fedspan blob 1\n"
_PIECE = 1024 * 1024  # read and hashed at a time
_PARALLEL = 8  # leaves from which on a second thread pays


@dataclass(frozen=True)
class Manifest:
    """`leaves` holds 32 bytes for each leaf; only the last leaf may be shorter than 4 MiB."""

    length: int
    leaves: bytes

    def __post_init__(self) -> None:
        if self.length < 0 or len(self.leaves) != 32 * self.count:
            raise ProtocolError(
                "A blob manifest does not add up", why=f"{self.length} bytes, {len(self.leaves)} of hashes"
            )

    @property
    def count(self) -> int:
        return -(-self.length // LEAF)

    @property
    def id(self) -> bytes:
        return blob_id(self.length, self.leaves)

    def leaf(self, index: int) -> bytes:
        return self.leaves[32 * index : 32 * index + 32]

    def size(self, index: int) -> int:
        """Bytes of one leaf."""
        return min(LEAF, self.length - index * LEAF)


def blob_id(length: int, leaves: bytes) -> bytes:
    return blake3(_DOMAIN + length.to_bytes(8, "little") + leaves).digest()


def of_bytes(data: bytes) -> Manifest:
    leaves = b"".join(blake3(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF))
    return Manifest(len(data), leaves)


def of_file(path: Path) -> Manifest:
    """Hash a file by leaves, large ones in two threads.

    It is read, not mapped: a script that cut its file meanwhile would end us with SIGBUS.

    Raises:
        ProtocolError: the file became shorter meanwhile.
    """
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        length = os.fstat(fd).st_size
        count = -(-length // LEAF)
        if count < _PARALLEL:
            return Manifest(length, _leaves(fd, 0, count, length))
        half = count // 2
        with ThreadPoolExecutor(1, "hash") as pool:
            rest = pool.submit(_leaves, fd, half, count, length)
            first = _leaves(fd, 0, half, length)
            return Manifest(length, first + rest.result())


def _leaves(fd: int, first: int, end: int, length: int) -> bytes:
    found = bytearray()
    with memoryview(bytearray(min(_PIECE, length))) as buffer:
        for index in range(first, end):
            hasher, at = blake3(), index * LEAF
            stop = min(at + LEAF, length)
            while at < stop:
                done = os.preadv(fd, [buffer[: min(_PIECE, stop - at)]], at)
                if not done:
                    raise ProtocolError("A file became shorter while it was read")
                hasher.update(buffer[:done])
                at += done
            found += hasher.digest()
    return bytes(found)
