"""A store of blobs, content for it, and the way of content into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_runtime.blobs import BLOB_SCHEMA, BlobStore
from fl_runtime.db import Sqlite
from fl_runtime.names import CHUNK, LEAF


def store(folder: Path) -> BlobStore:
    return BlobStore(folder, Sqlite(folder / "test.db", [BLOB_SCHEMA]))


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def feed(incoming, data: bytes, first: int, count: int) -> None:
    writer = incoming.writer(first, count)
    for at in range(first * LEAF, min((first + count) * LEAF, len(data)), CHUNK):
        writer.take(data[at : min(at + CHUNK, len(data))])
