"""kill -9 of each process in the middle of a job: work goes on from the last finished piece."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from federation import Federation, until
from safetensors.numpy import load_file
from scripts import SLOW

from fl_runtime.admin import Session

ROUNDS = 6
EXPECTED = np.full(4, 2.0 * ROUNDS, np.float32)  # the mean of 1, 2 and 3, each round


def submit(fed: Federation, session: Session, **config: object) -> tuple[str, Path]:
    marks = fed.root / "marks"
    marks.mkdir(exist_ok=True)
    folder = fed.job(
        "slow",
        SLOW,
        config={"marks": str(marks), "seconds": 0.15, **config},
        workflow={"type": "fedavg", "rounds": ROUNDS, "model": {"tensors": {"w": [4]}}, "min_sites": 3},
    )
    return session.submit(folder), marks


def at_round(session: Session, job: str, number: int) -> None:
    until(lambda: session.show(job)["round"] >= number, 30, f"round {number}")


def ends_well(fed: Federation, session: Session, job: str, marks: Path, repeated: int = 0) -> None:
    session.wait(job, 60)
    model = load_file(session.download(job, fed.root / "results") / "model.safetensors")
    assert np.array_equal(model["w"], EXPECTED)
    for site in fed.sites:
        computed = [int(line) for line in (marks / f"{site}.txt").read_text().split()]
        assert sorted(set(computed)) == list(range(ROUNDS)), site
        assert len(computed) <= ROUNDS + repeated, f"{site} computed a finished result again: {computed}"


def job_processes(job: str) -> dict[str, psutil.Process]:
    """The job's processes by whose they are: a site's name, or `server`."""
    found = {}
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("FEDSPAN_JOB") == job:
            command = " ".join(process.info["cmdline"] or [])
            socket = Path(process.info["environ"]["FEDSPAN_CLIENT_SOCKET"])  # STATE/jobs/JOB/agent.sock
            found["server" if "workflow.process" in command else socket.parents[2].name] = process
    return found


def test_a_killed_agent_comes_back_and_adopts_its_running_script(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 2)
        before = job_processes(job)["site-2"].pid
        fresh.sites["site-2"].kill()
        fresh.sites["site-2"].start()
        ends_well(fresh, session, job, marks)
        assert f"goes on with process {before}" in fresh.sites["site-2"].text()


def test_an_idle_script_that_is_killed_after_its_agent_was_has_not_left_the_job(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session, slow=["site-1"], seconds=1.0)  # site-2 mostly waits for the next round
        at_round(session, job, 1)
        script = job_processes(job)["site-2"]
        fresh.sites["site-2"].kill()
        fresh.sites["site-2"].start()
        until(lambda: f"goes on with process {script.pid}" in fresh.sites["site-2"].text(), 20, "adoption")
        script.kill()
        ends_well(fresh, session, job, marks, repeated=1)


def test_a_killed_server_goes_on_where_it_was(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 2)
        fresh.server.kill()
        fresh.server.start()
        ends_well(fresh, session, job, marks)
        assert [entry["round"] for entry in session.show(job)["history"]] == list(range(ROUNDS))


@pytest.mark.slow
def test_a_killed_job_process_on_the_server_is_started_again(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 2)
        job_processes(job)["server"].send_signal(signal.SIGKILL)
        ends_well(fresh, session, job, marks)


def test_a_killed_script_computes_its_round_again_and_nothing_else(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 2)
        job_processes(job)["site-1"].send_signal(signal.SIGKILL)
        ends_well(fresh, session, job, marks, repeated=1)


def test_everything_killed_at_once_and_started_again_ends_the_same(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 3)
        scripts = job_processes(job)
        for process in [fresh.server, *fresh.sites.values()]:
            process.kill()
        for script in scripts.values():
            script.kill()
        fresh.start()
        ends_well(fresh, session, job, marks, repeated=1)


@pytest.mark.slow
def test_a_server_that_is_stopped_and_started_cleanly_goes_on_too(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 2)
        assert fresh.server.stop() == 0
        assert not any("workflow.process" in " ".join(p.cmdline()) for p in job_processes(job).values())
        fresh.server.start()
        ends_well(fresh, session, job, marks)


def test_an_agent_that_was_away_at_the_jobs_end_ends_its_script_when_it_returns(fresh: Federation) -> None:
    with fresh.session() as session:
        job, _ = submit(fresh, session)
        at_round(session, job, 1)
        fresh.sites["site-3"].kill()
        session.abort(job)
        assert "site-3" in job_processes(job)
        fresh.sites["site-3"].start()
        until(lambda: not job_processes(job), 15, "the script is gone")
        fresh.registered("site-3")


@pytest.mark.slow
def test_stopping_a_site_leaves_no_process(fresh: Federation) -> None:
    with fresh.session() as session:
        job, _ = submit(fresh, session)
        at_round(session, job, 1)
        assert fresh.sites["site-1"].stop() == 0
        assert "site-1" not in job_processes(job)
        assert not fresh.sites["site-1"].status()["running"]


@pytest.mark.slow
def test_thirty_kills_at_random_moments_end_with_the_undisturbed_model(fresh: Federation) -> None:
    rounds, rng = 20, np.random.default_rng(int(os.environ.get("SEED", "1")))
    marks = fresh.root / "marks"
    marks.mkdir()
    folder = fresh.job(
        "random",
        SLOW,
        config={"marks": str(marks), "seconds": 0.8},
        workflow={"type": "fedavg", "rounds": rounds, "model": {"tensors": {"w": [4]}}, "min_sites": 3},
    )
    with fresh.session() as session:
        job = session.submit(folder)
        kills = 0
        while kills < 30 and _state(session, job) not in ("FINISHED", "FAILED"):
            time.sleep(rng.uniform(0.1, 0.8))
            victim = ["server", "site-1", "site-2", "site-3", "job-server", "job-site"][rng.integers(6)]
            if victim.startswith("job-"):
                running = job_processes(job)
                name = "server" if victim == "job-server" else f"site-{rng.integers(1, 4)}"
                if name not in running:
                    continue
                running[name].kill()
            else:
                process = fresh.server if victim == "server" else fresh.sites[victim]
                process.kill()
                process.start()
            kills += 1
        view = session.wait(job, 200)
        assert kills == 30, f"the job ended after {kills} kills"
        model = load_file(session.download(job, fresh.root / "results") / "model.safetensors")
    assert np.array_equal(model["w"], np.full(4, 2.0 * rounds, np.float32))
    assert [entry["round"] for entry in view["history"]] == list(range(rounds))


def _state(session: Session, job: str) -> str:
    from fl_runtime.errors import FlError

    try:
        return str(session.show(job)["state"])
    except FlError:
        return "UNKNOWN"
