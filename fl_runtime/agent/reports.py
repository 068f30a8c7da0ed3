"""What job processes print and measure, on its way to the server: of low priority, nothing twice, nothing in between.

Both lie in files of the job's folder until the server has them: the log as the script prints it, metrics as lines of
JSON that the script has appended. The server says at each start and after each break how far it is; a log that is too
much loses its middle (fl_runtime/tail.py), metrics lose nothing.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from fl_runtime.agent.link import Link
from fl_runtime.agent.run import Run
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.tail import Bucket, Piece, Tail

log = logging.getLogger("fedspan.agent")

_EVERY_S = 0.25
_METRICS_APART_S = 0.02
_METRICS_PIECE = 32 * 1024
_METRIC_LIMIT = 2 * 1024 * 1024  # bytes of one line
_END_PATIENCE_S = 5.0  # for the rest of a log, when its job is over


class _Reported:
    """One job's two files."""

    def __init__(self, run: Run) -> None:
        self.log = Tail(run.log_path)
        self.metrics = run.place.metrics
        self.metrics_at: int | None = None  # what the server has; None until it said so
        self.lock = threading.Lock()


class Reports:
    """One thread ships; the order of the messages of a job is that of its files."""

    def __init__(self, link: Link, runs: Callable[[], list[Run]]) -> None:
        self._link = link
        self._runs = runs
        self._bucket = Bucket()
        self._reported: dict[str, _Reported] = {}
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._stopping = False

    def start(self) -> None:
        threading.Thread(target=self._ship, name="reports", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._due.set()

    def _of(self, run: Run) -> _Reported:
        with self._lock:
            return self._reported.setdefault(run.job, _Reported(run))

    # --- where the server is

    def resume(self, run: Run, log_have: int, metric_have: int) -> None:
        """The server has this much."""
        reported = self._of(run)
        reported.log.resume(log_have)
        with reported.lock:
            reported.metrics_at = metric_have
        self._due.set()

    def have(self, message: pb.ReportHave) -> None:
        """Something did not continue what the server has: go on from there."""
        for run in self._runs():
            if run.job == message.job:
                self.resume(run, message.log, message.metric)

    def welcomed(self) -> None:
        """A new connection: the server will say how far it is."""
        with self._lock:
            known = list(self._reported.values())
        for reported in known:
            reported.log.pause()
            with reported.lock:
                reported.metrics_at = None

    # --- metrics

    def _ship_metrics(self, job: str, reported: _Reported, patience: float = 0.0) -> None:
        with reported.lock:
            at = reported.metrics_at
            if at is None or not reported.metrics.exists():
                return
            with open(reported.metrics, "rb") as file:
                while data := _lines(file.fileno(), at):
                    items = [item for line in data.splitlines() if (item := _parsed(line)) is not None]
                    end = at + len(data)
                    message = pb.MetricData(job=job, document=json.dumps(items).encode(), offset=at, next=end)
                    if not self._send(patience, metric=message):
                        return
                    reported.metrics_at = at = end

    # --- shipping

    def _ship(self) -> None:
        turn = 0
        while not self._stopping:
            self._due.wait(_EVERY_S)
            self._due.clear()
            runs = self._runs()
            turn += 1
            for run in runs[turn % max(1, len(runs)) :] + runs[: turn % max(1, len(runs))]:
                try:
                    reported = self._of(run)
                    self._ship_metrics(run.job, reported)
                    reported.log.ship(self._piece(run.job, 0.0), self._bucket)
                except Exception:
                    log.exception("%s: its reports could not be sent", run.job)
            time.sleep(_METRICS_APART_S)

    def _piece(self, job: str, patience: float) -> Callable[[Piece], bool]:
        def send(piece: Piece) -> bool:
            message = pb.LogData(job=job, offset=piece.at, data=piece.data, next=piece.next)
            return self._send(patience, log=message)

        return send

    def _send(self, patience: float, **body: Any) -> bool:
        end = time.monotonic() + patience
        while not self._link.send_low(**body):
            if time.monotonic() > end or not self._link.connected:
                return False
            time.sleep(0.005)
        return True

    def flush(self, run: Run) -> None:
        """The script has ended: what is left goes at once."""
        reported = self._of(run)
        self._ship_metrics(run.job, reported, _END_PATIENCE_S)
        reported.log.ship(self._piece(run.job, _END_PATIENCE_S), None)

    def ended(self, run: Run, figures: bytes) -> None:
        """The job is over here: the rest, then the word that nothing follows, and what is free now."""
        self.flush(run)
        with self._lock:
            self._reported.pop(run.job, None)
        self._send(_END_PATIENCE_S, site_state=pb.SiteState(job=run.job, state="ended", figures=figures))


def _lines(fd: int, at: int) -> bytes:
    """Whole lines from a position, at most a piece of them (one long line goes alone; what is far too long is none)."""
    size = _METRICS_PIECE
    while True:
        data = os.pread(fd, size, at)
        end = data.rfind(b"\n") + 1
        if end or len(data) < size:
            return data[:end]
        if size >= _METRIC_LIMIT:
            return data
        size *= 4


def _parsed(line: bytes) -> Any:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):  # torn by a full disk, or no metric
        return None
    return item if isinstance(item, dict) and "key" in item and "value" in item else None
