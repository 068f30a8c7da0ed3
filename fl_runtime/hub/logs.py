"""Logs of jobs on the server: one append-only file for each job and participant."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from fl_runtime.names import is_job_id, is_participant_name

PIECE = 256 * 1024


class LogBook:
    """Files `FOLDER/JOB/PARTICIPANT.log`. A piece is kept when it continues its file: nothing twice, all in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def path(self, job: str, participant: str) -> Path:
        if not is_job_id(job) or not is_participant_name(participant):
            raise ValueError(f"no log of {job!r}, {participant!r}")
        folder = self.folder / job
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / f"{participant}.log"

    def size(self, job: str, participant: str) -> int:
        path = self.path(job, participant)
        return path.stat().st_size if path.exists() else 0

    def append(self, job: str, participant: str, offset: int, data: bytes) -> bool:
        with self._lock:
            have = self.size(job, participant)
            if offset > have or offset + len(data) <= have:
                return False
            with open(self.path(job, participant), "ab") as file:
                file.write(data[have - offset :])
            return True

    def read(self, job: str, participant: str, offset: int, limit: int = PIECE) -> bytes:
        path = self.path(job, participant)
        if not path.exists():
            return b""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(limit)

    def remove(self, job: str) -> None:
        """Forget all logs of a job."""
        if is_job_id(job):
            shutil.rmtree(self.folder / job, ignore_errors=True)

    def participants(self, job: str) -> list[str]:
        if not is_job_id(job):
            return []
        return sorted(path.stem for path in (self.folder / job).glob("*.log"))
