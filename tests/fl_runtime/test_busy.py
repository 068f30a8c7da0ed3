"""The mark by which an idle machine is told from one with a job: who touches it when."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from federation import Federation, until
from scripts import FOREVER

from fl_runtime.agent import busy
from fl_runtime.agent.busy import Busy
from fl_runtime.agent.jobs import SiteJobs
from fl_runtime.agent.journal import Journal


def touched(path: Path) -> bool:
    """Whether it was touched since this was last asked."""
    fresh = path.stat().st_mtime > 0
    if fresh:  # else one that came between would be lost
        os.utime(path, (0, 0))
    return fresh


def test_the_mark_is_fresh_while_there_is_a_job_and_old_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "EVERY_S", 0.01)
    jobs, looks = [True], [0]

    def has_job() -> bool:
        looks[0] += 1
        if not jobs:
            return False
        if looks[0] % 2:
            raise OSError("the journal can't be read")  # is told, and the next look is taken
        return True

    mark = Busy(tmp_path, has_job)
    mark.start()
    try:
        assert touched(tmp_path / "busy")  # made while there is room on the disk
        until(lambda: touched(tmp_path / "busy"), what="touched, for there is a job")
        until(lambda: touched(tmp_path / "busy"), what="touched again")
        jobs.clear()
        seen = looks[0]
        until(lambda: looks[0] > seen + 1)  # the look under way, and one more
        touched(tmp_path / "busy")
        seen = looks[0]
        until(lambda: looks[0] > seen + 3)
        assert not touched(tmp_path / "busy")
    finally:
        mark.stop()


def test_a_job_that_the_site_has_given_up_or_that_is_over_counts_no_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    kit = SimpleNamespace(resources=dict)
    jobs = SiteJobs(cast(Any, SimpleNamespace(kit=kit, journal=journal, state=tmp_path)))
    journal.add_job("job-1", b"", b"", {}, "accepted", "")
    assert not jobs.any_unfinished()  # left by an earlier life, and could not be taken up
    jobs._runs["job-1"] = cast(Any, SimpleNamespace(job="job-1"))
    assert jobs.any_unfinished()
    journal.set_job("job-1", "failed", "its script ended")
    assert not jobs.any_unfinished()


def test_a_sites_agent_touches_its_mark_when_a_job_begins_and_when_it_ends(running: Federation) -> None:
    mark = running.sites["site-1"].state / "busy"
    folder = running.job("marked", FOREVER, sites=["site-1"], workflow={"type": "fedavg", "rounds": 1})
    with running.session() as session:
        touched(mark)
        job = session.submit(folder)
        until(lambda: touched(mark), what="its begin")
        until(lambda: job in running.sites["site-1"].status()["jobs"])
        touched(mark)
        session.abort(job)
        until(lambda: touched(mark), what="its end")
