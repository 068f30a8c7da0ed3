"""zstd by leaf: 4 MiB at a time, each a frame of its own. Bytes of the same significance go together first: floats that
are near each other share their high bytes.

The file: 8 bytes magic, length of the content (u64), bytes of an element (u32), number of frames (u32), their lengths
(u32 each), the frames. A frame's first byte: 0 as it is, 1 zstd, 2 zstd of shuffled bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import zstandard

from fl_runtime.errors import ProtocolError
from fl_runtime.filters.views import Output
from fl_runtime.names import LEAF

MAGIC = b"fspzstd1"
_HEAD = struct.Struct("<8sQII")
_STORED, _PLAIN, _SHUFFLED = 0, 1, 2


def compress(source: Path, target: Path, level: int, width: int) -> None:
    """`width`: bytes of most of the elements."""
    packer = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    length = source.stat().st_size
    frames = -(-length // LEAF)
    sizes: list[int] = []
    with open(source, "rb") as file, Output(target) as out:
        at = _HEAD.size + 4 * frames
        for _ in range(frames):
            leaf = file.read(LEAF)
            kind = _SHUFFLED if width > 1 and len(leaf) % width == 0 else _PLAIN
            body = packer.compress(_shuffle(leaf, width) if kind == _SHUFFLED else leaf)
            if len(body) >= len(leaf):
                kind, body = _STORED, leaf
            sizes.append(1 + len(body))
            at = out.put(bytes([kind]), at)
            at = out.put(body, at)
        out.put(_HEAD.pack(MAGIC, length, width, frames) + struct.pack(f"<{frames}I", *sizes), 0)
        out.truncate(at)


def is_compressed(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source[:8] == MAGIC
    with open(source, "rb") as file:
        return file.read(8) == MAGIC


def decompress(source: Path | bytes, target: Path, limit: int) -> None:
    """Raises ProtocolError: it is damaged, or longer than `limit` bytes."""
    unpacker = zstandard.ZstdDecompressor()
    data = memoryview(source) if isinstance(source, bytes) else np.memmap(source, np.uint8, "r").data
    try:
        _, length, width, frames = _HEAD.unpack(data[: _HEAD.size])
        if length > limit or frames != -(-length // LEAF) or not 1 <= width <= 8:
            raise ValueError(f"{length} bytes in {frames} frames")
        sizes = struct.unpack(f"<{frames}I", data[_HEAD.size : _HEAD.size + 4 * frames])
        at, done = _HEAD.size + 4 * frames, 0
        if at + sum(sizes) != len(data):
            raise ValueError("its length is not that of its frames")
        with Output(target) as out:
            for size in sizes:
                kind, body = data[at], bytes(data[at + 1 : at + size])
                wanted = min(LEAF, length - done)
                if kind != _STORED:
                    if zstandard.frame_content_size(body) != wanted:
                        raise ValueError("a frame has another length")
                    body = unpacker.decompress(body, max_output_size=wanted)
                    if kind == _SHUFFLED:
                        body = _unshuffle(body, width)
                if len(body) != wanted:
                    raise ValueError("a frame has another length")
                done, at = out.put(body, done), at + size
            out.truncate(length)
    except (ValueError, struct.error, IndexError, zstandard.ZstdError) as error:
        raise ProtocolError("A compressed payload is damaged", why=str(error)) from None


def _shuffle(data: bytes, width: int) -> bytes:
    return bytes(np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes())


def _unshuffle(data: bytes, width: int) -> bytes:
    if len(data) % width:
        raise ValueError("a shuffled frame is cut")
    return bytes(np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes())
