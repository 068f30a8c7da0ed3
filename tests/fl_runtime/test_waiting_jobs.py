"""A job that was started and whose sites have not all accepted it: it waits as long as it takes, and says for whom."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from lone_hub import JOB, server

from fl_runtime import localsock
from fl_runtime.hub.job_process import Running
from fl_runtime.hub.joblink import JobLink


class Hour(threading.Event):
    """Whoever waits with a limit has waited for that long."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else 0.0)


def test_its_process_waits_for_days_when_a_site_is_away_for_days(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        running = Running(made.job, tmp_path, 1, ready=Hour())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.settimeout(30)
            link = JobLink(made.hub, running, localsock.Connection(ours))
            serving = threading.Thread(target=link.serve, daemon=True)
            serving.start()
            serving.join(0.2)
            assert serving.is_alive()  # its end would end the process, and count as a crash
            running.ready.set()
            received = localsock.Connection(theirs).receive()
            assert received is not None
            assert received[0]["sites"] == ["site-1", "site-2"]
            theirs.shutdown(socket.SHUT_RDWR)
            serving.join(30)
            assert not serving.is_alive()


def test_people_are_told_for_which_sites_it_waits(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        jobs = made.hub.jobs
        running = jobs._running[JOB] = Running(made.job, tmp_path, 1)
        for site in ("site-1", "site-2"):
            made.hub.store.set_site(JOB, site, "invited")
        made.connect("site-1")
        assert jobs.detail(made.job) == "waiting for sites to accept it: site-1, site-2 (not connected)"
        made.hub.store.set_site(JOB, "site-1", "accepted")
        assert jobs.detail(made.job) == "waiting for sites to accept it: site-2 (not connected)"
        running.ready.set()
        assert jobs.detail(made.job) == ""
        del jobs._running[JOB]
