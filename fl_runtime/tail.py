"""A file that a process appends to, shipped in pieces: a token bucket, a count of dropped lines, a bounded disk.

The process writes straight into the file, so its output outlives whoever ships it. What is more than the bucket lets
through is dropped from the middle: the newest stays, and a line says how much is missing. What was shipped or dropped
is punched out of the file (Linux; elsewhere it stays), so that a process that prints without end fills no disk;
positions in the file keep their meaning.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RATE = 256 * 1024  # bytes a second, of all logs of an agent (or of the server's job processes) together
BURST = 1024 * 1024
BACKLOG = 8 * 1024 * 1024  # so much may wait, of each file; beyond it the middle is dropped
KEEP = 512 * 1024  # of the newest, when something is dropped, and at the end
PIECE = 16 * 1024  # small: a control message waits for one of them at most
_SHIPPED_KEPT = 1024 * 1024  # behind us, for a receiver that asks again
_BLOCK = 4096
_KEEP_SIZE_PUNCH_HOLE = 3

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Piece:
    """Bytes for position `at`. The next piece is for `next`, further than their length where lines are missing."""

    at: int
    data: bytes
    next: int


class Bucket:
    """`rate` tokens a second, `burst` at most."""

    def __init__(self, rate: float = RATE, burst: float = BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens = burst
        self._filled = clock()

    def take(self, count: int) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def give_back(self, count: int) -> None:
        self._tokens += count


class Tail:
    """One file. `at` is how far it is shipped; nothing goes before the receiver has said where to go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0
        self._live = False
        self._gaps: list[tuple[int, int, int, bool]] = []  # dropped: from, to, lines, and whether these are all
        self._punched = 0
        self._lock = threading.Lock()

    def resume(self, at: int) -> None:
        """The receiver has everything before `at`."""
        with self._lock:
            self.at = at
            self._live = True

    def pause(self) -> None:
        """There is no receiver for now."""
        with self._lock:
            self._live = False

    def ship(self, send: Callable[[Piece], bool], bucket: Bucket | None) -> None:
        """Give `send` what it and the bucket take; it says False when it can't take more.

        Args:
            bucket: None = this is the end: the newest `KEEP` bytes (at least) go at once.
        """
        with self._lock:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                size = os.fstat(fd).st_size
                self.at = min(self.at, size)
                self._drop(fd, size, BACKLOG if bucket else 2 * KEEP)
                if self._live:
                    self._send(fd, size, send, bucket)
                self._punch(fd)
            finally:
                os.close(fd)

    def _drop(self, fd: int, size: int, limit: int) -> None:
        if size - self.at <= limit:
            return
        end = size - KEEP
        newline = os.pread(fd, KEEP, end).find(b"\n")
        end += newline + 1 if newline >= 0 else 0
        start, (lines, exact) = self.at, _count(fd, self.at, end)
        if self._gaps and self._gaps[-1][1] == start and not self._live:
            start, _, before, exact_before = self._gaps.pop()
            lines, exact = lines + before, exact and exact_before
        self._gaps = [*self._gaps[-15:], (start, end, lines, exact)]
        if not self._live:
            self.at = end

    def _send(self, fd: int, size: int, send: Callable[[Piece], bool], bucket: Bucket | None) -> None:
        while self.at < size:
            piece = self._next(fd, size)
            if bucket is not None and not bucket.take(len(piece.data)):
                return
            if not send(piece):
                if bucket is not None:
                    bucket.give_back(len(piece.data))
                return
            self.at = piece.next

    def _next(self, fd: int, size: int) -> Piece:
        at = self.at
        for start, end, lines, exact in self._gaps:
            if start <= at < end:
                return self._missing(fd, at, end, f"{lines} lines" if exact else f"at least {lines} lines")
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            begin = size  # nothing but a hole
        if begin > at:  # dropped by an earlier life of this process, which knew how many lines it were
            return self._missing(fd, at, begin, "lines")
        data = os.pread(fd, min(PIECE, size - at, *(gap[0] - at for gap in self._gaps if gap[0] > at)), at)
        return Piece(at, data, at + len(data))

    def _missing(self, fd: int, at: int, end: int, what: str) -> Piece:
        before = os.pread(fd, 1, at - 1) if at else b"\n"
        cut = b"" if before in (b"\n", b"\0") else b"\n"
        text = f"[fedspan: {what} dropped here ({end - at} bytes): logs go at {RATE // 1024} KiB/s]\n"
        return Piece(at, cut + text.encode(), end)

    def _punch(self, fd: int) -> None:
        end = (self.at - _SHIPPED_KEPT) // _BLOCK * _BLOCK
        if end - self._punched < BURST:
            return
        call = getattr(_libc, "fallocate", None)
        if call is not None:
            call(
                ctypes.c_int(fd),
                ctypes.c_int(_KEEP_SIZE_PUNCH_HOLE),
                ctypes.c_int64(self._punched),
                ctypes.c_int64(end - self._punched),
            )
        self._punched = end


def _count(fd: int, at: int, end: int) -> tuple[int, bool]:
    """Lines between two positions, and whether these are all: what lay in a hole is not known any more."""
    lines, exact = 0, True
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return lines, False
        exact = exact and data == at
        at = data
        if at < end:
            lines += os.pread(fd, min(BURST, end - at), at).count(b"\n")
            at += BURST
    return lines, exact


def last_lines(path: Path, size: int = 4000) -> list[str]:
    """The end of a log, for a message; the file may be very large (and mostly holes)."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size).decode(errors="replace").strip("\0\n ").splitlines()
    except OSError:
        return []
