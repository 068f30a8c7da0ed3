"""What job processes print and measure, on its way to the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from fl_runtime.agent.link import Link
from fl_runtime.agent.run import Run
from fl_runtime.proto import fedspan_pb2 as pb

_LOG_EVERY_S = 0.25
_LOG_PIECE = 64 * 1024


class Reports:
    """Logs lie in files until the server has them; metrics wait here while there is no connection."""

    def __init__(self, link: Link, runs: Callable[[], list[Run]]) -> None:
        self._link = link
        self._runs = runs
        self._metrics: list[tuple[str, list[Mapping[str, Any]]]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._ship, name="logs", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def welcomed(self) -> None:
        """A new connection: send what was kept."""
        with self._lock:
            metrics, self._metrics = self._metrics, []
        for job, items in metrics:
            self.metric(job, items)

    def metric(self, job: str, items: list[Mapping[str, Any]]) -> None:
        document = json.dumps(items).encode()
        if not self._link.send(metric=pb.MetricData(job=job, document=document)):
            with self._lock:
                self._metrics.append((job, items))
                del self._metrics[:-10_000]

    def _ship(self) -> None:
        while not self._stopping.wait(_LOG_EVERY_S):
            for run in self._runs():
                self.flush(run)

    def flush(self, run: Run) -> None:
        with run.log_lock:
            offset = run.log_offset
            if offset is not None and run.log_path.exists():
                self._send_log(run, offset)

    def _send_log(self, run: Run, offset: int) -> None:
        with open(run.log_path, "rb") as file:
            file.seek(offset)
            while data := file.read(_LOG_PIECE):
                if not self._link.send(log=pb.LogData(job=run.job, offset=offset, data=data)):
                    return
                offset += len(data)
                run.log_offset = offset
