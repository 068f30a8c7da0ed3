"""The log files of one command: a folder for the run, a file for each participant, under `.fedspan/logs`."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

KEPT_RUNS = 50


class _LogFile(io.TextIOWrapper):
    """A text file for several threads: whole lines, flushed at once, so that a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        binary = os.fdopen(descriptor, "wb", buffering=0)
        super().__init__(binary, encoding="utf-8", errors="replace", write_through=True)
        self._path = str(path)
        self._write_lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._path

    def write(self, text: str) -> int:
        with self._write_lock:
            return super().write(text)


@dataclass
class RunLog:
    """The logs of one run. Made lazily: a command that logs nothing leaves nothing."""

    state_dir: Path
    verb: str
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _files: dict[str, IO[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        """`.fedspan/logs/20261121-093000-up`; the process id tells two runs of one second apart."""
        stamp = self.started.strftime("%Y%m%d-%H%M%S")
        return self.state_dir / "logs" / f"{stamp}-{self.verb}-{os.getpid()}"

    def path(self, participant: str) -> Path:
        """One participant's log."""
        return self.folder / f"{participant}.log"

    def file(self, participant: str) -> IO[str]:
        """One participant's log, open for appending."""
        with self._lock:
            if participant not in self._files:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._files[participant] = _LogFile(self.path(participant))
            return self._files[participant]

    def close(self) -> None:
        """Close all files, and forget the oldest runs."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
        self._forget_old()

    def _forget_old(self) -> None:
        import shutil

        folder = self.state_dir / "logs"
        runs = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        for path in runs[:-KEPT_RUNS]:
            shutil.rmtree(path, ignore_errors=True)
