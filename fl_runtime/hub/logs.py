"""Logs of jobs on the server: one append-only file for each job and participant, and how far in its source each is."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from fl_runtime.names import is_job_id, is_participant_name
from fl_runtime.tail import Bucket, Piece, Tail

log = logging.getLogger("fedspan.hub")

PIECE = 256 * 1024
_EVERY_S = 0.25


class LogBook:
    """Files `FOLDER/JOB/PARTICIPANT.log`. A piece is kept when it continues its file: nothing twice, all in order.

    Beside each lies `PARTICIPANT.at`: the position in the source that its end stands for, which is not its size where
    lines were dropped. It is written after the log; a log that is longer than it says is cut (a kill between the two).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._at: dict[tuple[str, str], tuple[int, int]] = {}  # position in the source, size
        self._full = False

    def path(self, job: str, participant: str) -> Path:
        if not is_job_id(job) or not is_participant_name(participant):
            raise ValueError(f"no log of {job!r}, {participant!r}")
        folder = self.folder / job
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / f"{participant}.log"

    def have(self, job: str, participant: str) -> int:
        """How far in its source the log is."""
        with self._lock:
            return self._position(job, participant)[0]

    def _position(self, job: str, participant: str) -> tuple[int, int]:
        known = self._at.get((job, participant))
        if known is None:
            path = self.path(job, participant)
            size = path.stat().st_size if path.exists() else 0
            known = size, size
            with contextlib.suppress(OSError, ValueError):
                at, noted = path.with_suffix(".at").read_text().split()
                known = int(at), min(size, int(noted))
            if size > known[1]:
                with open(path, "r+b") as file:
                    file.truncate(known[1])
            self._at[job, participant] = known
        return known

    def append(self, job: str, participant: str, at: int, data: bytes, next_: int = 0) -> bool:
        """Keep a piece; True when it continued (or is here already), False when the sender must go on from `have()`.

        Args:
            next_: where the following piece begins; 0 = `at` + its length.
        """
        end = next_ or at + len(data)
        with self._lock:
            try:
                have, size = self._position(job, participant)
                if at > have:
                    return False
                if end <= have:
                    return True
                if end == at + len(data):
                    data = data[have - at :]
                path = self.path(job, participant)
                with open(path, "ab") as file:
                    file.write(data)
                size += len(data)
                self._note(path, end, size)
                self._at[job, participant] = end, size
                self._full = False
            except OSError as error:
                self._at.pop((job, participant), None)  # what is on the disk counts
                if not self._full:
                    log.error("logs wait to be stored: %s", error)
                self._full = True
                return False
            return True

    def _note(self, path: Path, at: int, size: int) -> None:
        file = path.with_suffix(".at")
        with open(file, "r+b" if file.exists() else "xb", buffering=0) as note:
            note.write(b"%20d %20d\n" % (at, size))

    def read(self, job: str, participant: str, offset: int, limit: int = PIECE) -> bytes:
        path = self.path(job, participant)
        if not path.exists() or offset >= path.stat().st_size:
            return b""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(limit)

    def remove(self, job: str) -> None:
        """Forget all logs of a job."""
        if is_job_id(job):
            with self._lock:
                self._at = {key: value for key, value in self._at.items() if key[0] != job}
            shutil.rmtree(self.folder / job, ignore_errors=True)

    def participants(self, job: str) -> list[str]:
        if not is_job_id(job):
            return []
        return sorted(path.stem for path in (self.folder / job).glob("*.log"))


class ServerLogs:
    """What the jobs' processes on the server print, through a bucket like the sites'."""

    def __init__(self, book: LogBook) -> None:
        self._book = book
        self._bucket = Bucket()
        self._tails: dict[str, Tail] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        threading.Thread(target=self._ship, name="logs", daemon=True).start()

    def follow(self, job: str, path: Path) -> None:
        with self._lock:
            if job not in self._tails:
                tail = self._tails[job] = Tail(path)
                tail.resume(self._book.have(job, "server"))

    def following(self, job: str) -> bool:
        with self._lock:
            return job in self._tails

    def ended(self, job: str) -> None:
        """Its process is gone: the rest goes at once."""
        with self._lock:
            tail = self._tails.get(job)
        if tail is not None:
            tail.ship(self._keeper(job), None)
        with self._lock:
            self._tails.pop(job, None)

    def close(self) -> None:
        self._stopping.set()

    def _keeper(self, job: str) -> Callable[[Piece], bool]:
        return lambda piece: self._book.append(job, "server", piece.at, piece.data, piece.next)

    def _ship(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            with self._lock:
                tails = dict(self._tails)
            for job, tail in tails.items():
                tail.ship(self._keeper(job), self._bucket)
