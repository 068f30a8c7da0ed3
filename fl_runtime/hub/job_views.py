"""Who takes part in a job, who is missing, and what it waits for: questions only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fl_runtime.hub.state import FINAL, QUEUED, RUNNING, Job

if TYPE_CHECKING:
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.main import Hub
    from fl_runtime.hub.starter import Starter

IN = ("accepted", "running")  # states of a site that takes part


class JobViews:
    """The part of `Jobs` that changes nothing."""

    starter: Starter

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def running(self, job: str) -> Running | None:
        """The job's process on the server."""
        raise NotImplementedError

    def taking_part(self, job: str) -> Mapping[str, str]:
        return {site: state for site, (state, _) in self._hub.store.sites(job).items()}

    def taking_part_list(self, job: str) -> list[str]:
        return [site for site, state in self.taking_part(job).items() if state in IN]

    def out(self, job: str) -> dict[str, str]:
        """Sites that took part and will not any more, with the reason."""
        return {site: why for site, (state, why) in self._hub.store.sites(job).items() if state in ("left", "failed")}

    def minimum(self, job: Job) -> int:
        """Sites that must take part: the job's min_sites, else all that it names, else one."""
        least = job.spec["workflow"].get("min_sites")
        if least is not None:
            return max(1, int(least))
        return 1 if job.spec["sites"] == "all" else len(job.spec["sites"])

    def detail(self, job: Job) -> str:
        """What a job that is not finished waits for."""
        if job.state == QUEUED:
            here = len(self.wanted(job))
            if here < self.minimum(job):
                return f"waiting for sites: {here} of {self.minimum(job)} connected"
            return f"waiting for room: {self.starter.waits_for(job.id) or 'the sites are asked'}"
        if job.state != RUNNING:
            return ""
        running = self.running(job.id)
        if running is not None and not running.ready.is_set():
            return self._not_ready(job)
        return "; ".join(self._hub.board.waiting(job.id))

    def _not_ready(self, job: Job) -> str:
        """Whom a job waits for that has been started and not begun."""
        here = self._hub.connected_sites()
        asked = [site for site, state in self.taking_part(job.id).items() if state == "invited"]
        missing = [site if site in here else f"{site} (not connected)" for site in asked]
        return f"waiting for sites to accept it: {', '.join(missing)}" if missing else ""

    def resources(self) -> dict[str, Any]:
        """For each connected site: what it has, what is free, which jobs run there."""
        running = self._hub.store.jobs([RUNNING])
        return {
            site: {
                **self.starter.figures(site),
                "jobs": [job.id for job in running if self.taking_part(job.id).get(site) in IN],
            }
            for site in self._hub.connected_sites()
        }

    def wanted(self, job: Job) -> list[str]:
        """The connected sites that the job wants."""
        sites = job.spec["sites"]
        return [name for name in self._hub.connected_sites() if sites == "all" or name in sites]

    def settled(self, job: Job) -> bool:
        """The job is over, and every connected site has ended its part and sent the rest of its log."""
        if job.state not in FINAL:
            return False
        if self._hub.server_logs.following(job.id):
            return False
        here = set(self._hub.connected_sites())
        return not any(state in IN and site in here for site, state in self.taking_part(job.id).items())
