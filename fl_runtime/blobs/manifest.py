"""A blob's manifest: its length and the BLAKE3 of each 4 MiB leaf. Its id is the hash of the manifest."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from fl_runtime.errors import ProtocolError
from fl_runtime.names import LEAF

_DOMAIN = b"fedspan blob 1\n"


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
    """Hash a file by leaves, straight from its pages."""
    with open(path, "rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        if length == 0:
            return Manifest(0, b"")
        leaves = bytearray()
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as pages, memoryview(pages) as view:
            for at in range(0, length, LEAF):
                with view[at : at + LEAF] as leaf:
                    leaves += blake3(leaf).digest()
    return Manifest(length, bytes(leaves))
