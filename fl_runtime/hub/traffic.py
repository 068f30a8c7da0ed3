"""What codecs save: bytes of the plain models and of what was sent in their place, for a job's history."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

WAYS = ("tasks", "results")


class Traffic:
    """Sums since each job's last round; a restart of the server loses those of the round that runs."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def count(self, job: str, way: str, plain: int, sent: int) -> None:
        """Args:
        way: `tasks` or `results`.
        """
        with self._lock:
            plain_so_far, sent_so_far = self._sums.get((job, way), (0, 0))
            self._sums[job, way] = plain_so_far + plain, sent_so_far + sent

    def figures(self, job: str) -> dict[str, Any]:
        """`{wire: {tasks: {plain, sent, ratio}, results: ...}}` in bytes; empty when nothing was encoded."""
        out: dict[str, Any] = {}
        for way in WAYS:
            with self._lock:
                plain, sent = self._sums.get((job, way), (0, 0))
            if plain:
                out[way] = {"plain": plain, "sent": sent, "ratio": round(sent / plain, 4)}
        return {"wire": out} if out else {}

    def told(self, job: str, figures: Mapping[str, Any]) -> None:
        """These figures are in the job's history: what came meanwhile counts for the next round."""
        for way, entry in figures.get("wire", {}).items():
            self.count(job, way, -entry["plain"], -entry["sent"])

    def end(self, job: str) -> None:
        with self._lock:
            for way in WAYS:
                self._sums.pop((job, way), None)
