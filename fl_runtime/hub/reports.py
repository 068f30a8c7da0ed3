"""What sites report of their jobs' processes: logs into files, metrics into the store, each once and in order."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from fl_runtime.hub.sessions import Session
from fl_runtime.proto import fedspan_pb2 as pb

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")

_TELL_EVERY_S = 0.25


class Reported:
    """Called on the sessions' threads: one at a time for each site."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._metrics_at: dict[tuple[str, str], int] = {}
        self._told: dict[tuple[str, str], float] = {}

    def metrics_at(self, job: str, site: str) -> int:
        """How far in the site's file of metrics we are."""
        known = self._metrics_at.get((job, site))
        if known is None:
            known = self._metrics_at[job, site] = self._hub.store.metrics_at(job, site)
        return known

    def log(self, session: Session, data: pb.LogData) -> None:
        site = session.identity.name
        if site not in self._hub.store.sites(data.job):
            return
        if not self._hub.logs.append(data.job, site, data.offset, data.data, data.next):
            self._have(session, data.job)

    def metric(self, session: Session, data: pb.MetricData) -> None:
        site = session.identity.name
        if site not in self._hub.store.sites(data.job):
            return
        at = self.metrics_at(data.job, site)
        if data.next and data.offset > at:
            self._have(session, data.job)
            return
        if data.next and data.next <= at:
            return
        items: list[dict[str, Any]] = json.loads(data.document)
        self._hub.store.add_metrics(data.job, site, items, data.next or None)
        if data.next:
            self._metrics_at[data.job, site] = data.next
        self._hub.changed()

    def forget(self, job: str) -> None:
        for table in (self._metrics_at, self._told):
            for key in [key for key in table if key[0] == job]:
                table.pop(key)

    def _have(self, session: Session, job: str) -> None:
        """Say where to go on: once for the pieces that are on their way already."""
        site = session.identity.name
        now = time.monotonic()
        if now - self._told.get((job, site), 0.0) < _TELL_EVERY_S:
            return
        self._told[job, site] = now
        log_have, metric_have = self._hub.logs.have(job, site), self.metrics_at(job, site)
        session.send(report_have=pb.ReportHave(job=job, log=log_have, metric=metric_have))
