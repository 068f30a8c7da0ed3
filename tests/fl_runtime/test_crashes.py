"""kill -9 of each process in the middle of a job: work goes on from the last finished piece."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from federation import Federation, Process, job_processes, until
from postgres_server import Server
from safetensors.numpy import load_file
from scripts import SLOW

from fl_runtime import localsock, processes
from fl_runtime.admin import Session
from fl_runtime.blobs import of_bytes
from fl_runtime.errors import JobError
from fl_runtime.job.envelope import seal
from fl_runtime.job.spec import parse_spec
from fl_runtime.names import ADOPT_S, SUBMIT_WITHIN_S
from fl_runtime.proto import fedspan_pb2 as pb

ROUNDS = 6
EXPECTED = np.full(4, 2.0 * ROUNDS, np.float32)  # the mean of 1, 2 and 3, each round


def submit(fed: Federation, session: Session, **config: object) -> tuple[str, Path]:
    marks = fed.root / "marks"
    marks.mkdir(exist_ok=True)
    folder = fed.job(
        "slow",
        SLOW,
        config={"marks": str(marks), "seconds": 0.3, **config},
        workflow={"type": "fedavg", "rounds": ROUNDS, "model": {"tensors": {"w": [4]}}, "min_sites": 3},
    )
    return session.submit(folder), marks


def at_round(session: Session, job: str, number: int) -> None:
    until(lambda: session.show(job)["round"] >= number, what=f"round {number}")


def ends_well(fed: Federation, session: Session, job: str, marks: Path, repeated: int = 0) -> None:
    session.wait(job, 120)
    model = load_file(session.download(job, fed.root / "results") / "model.safetensors")
    assert np.array_equal(model["w"], EXPECTED)
    for site in fed.sites:
        computed = [int(line) for line in (marks / f"{site}.txt").read_text().split()]
        assert sorted(set(computed)) == list(range(ROUNDS)), site
        assert len(computed) <= ROUNDS + repeated, f"{site} computed a finished result again: {computed}"


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
        until(lambda: f"goes on with process {script.pid}" in fresh.sites["site-2"].text(), what="adoption")
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
        until(lambda: not job_processes(job), ADOPT_S / 2, "the script is gone, before it gave its agent up by itself")
        fresh.registered("site-3")


@pytest.mark.slow
def test_stopping_a_site_leaves_no_process(fresh: Federation) -> None:
    with fresh.session() as session:
        job, _ = submit(fresh, session)
        at_round(session, job, 1)
        assert fresh.sites["site-1"].stop() == 0
        assert "site-1" not in job_processes(job)
        assert not fresh.sites["site-1"].status()["running"]


# --- agents that do not come back, launches that are over


@pytest.mark.slow
def test_a_script_waits_a_minute_for_its_agent_and_ends_by_itself(fresh: Federation) -> None:
    with fresh.session() as session:
        job, marks = submit(fresh, session)
        at_round(session, job, 1)
        script = job_processes(job)["site-2"]
        died = time.monotonic()
        fresh.sites["site-2"].kill()
        time.sleep(ADOPT_S - 5)
        assert script.is_running(), "it gave its agent up too soon"
        psutil.wait_procs([script], ADOPT_S)  # it noticed when it had sent: up to a round later
        assert time.monotonic() - died >= ADOPT_S
        assert not script.is_running()
        fresh.sites["site-2"].start()
        ends_well(fresh, session, job, marks, repeated=1)
        told = "".join(text for _, text in session.logs(job, "site-2"))
    assert "the agent did not come back within 60 s; this process ends" in told


# A process of the present launch that says it is of the one before.
OLDER = """
import os, pathlib
from fl_runtime.client.wire import AgentWire
from fl_runtime.errors import FlError
epoch = int(os.environ["FEDSPAN_EPOCH"]) - 1
try:
    wire = AgentWire(pathlib.Path(os.environ["FEDSPAN_CLIENT_SOCKET"]), {"job": "", "epoch": epoch})
    wire.attach({"op": "attach", "rank": 1, "world": 1, "pid": 0})
    print("epoch", epoch, "is taken", flush=True)
except FlError as error:
    print("epoch", epoch, "is refused:", error, flush=True)
"""


def test_what_an_older_launch_says_is_refused_on_both_sides(fresh: Federation) -> None:
    with fresh.session() as session:
        folder = fresh.job(
            "older",
            OLDER + SLOW,
            config={"marks": str(fresh.root / "marks"), "seconds": 0.4},
            workflow={"type": "fedavg", "rounds": ROUNDS, "model": {"tensors": {"w": [4]}}, "min_sites": 3},
        )
        job, marks = session.submit(folder), fresh.root / "marks"
        at_round(session, job, 1)
        job_processes(job)["site-1"].kill()
        job_processes(job)["server"].kill()
        until(lambda: "started again from the last" in fresh.server.text(), what="a new launch on the server")
        for epoch in (0, 1):
            at_server = localsock.connect(fresh.server.state / "local.sock")
            at_server.send({"op": "attach", "job": job, "epoch": epoch, "pid": 0})
            assert at_server.receive() == ({"error": "this launch of the job is over"}, b"")
            at_server.close()
        ends_well(fresh, session, job, marks, repeated=1)
        told = "".join(text for _, text in session.logs(job, "site-1"))
    for epoch in (0, 1):
        refusal = f"epoch {epoch} is refused: The agent refuses this process: this launch of the job is over"
        assert refusal in told


def without_its_agent(fed: Federation, session: Session, change: Callable[[Process, str], None]) -> str:
    """A job whose site-2 was changed while its agent was dead; the agent, back again, has ended the script."""
    job, _ = submit(fed, session, seconds=1.0)
    at_round(session, job, 1)
    script, agent = job_processes(job)["site-2"], fed.sites["site-2"]
    agent.kill()
    change(agent, job)
    agent.start()
    psutil.wait_procs([script], ADOPT_S - 15)  # before it gives its agent up by itself
    assert not script.is_running()
    assert "it can't go on here" in agent.text()
    return job


def test_an_agent_that_may_not_go_on_with_a_job_ends_what_is_left_of_it(fresh: Federation) -> None:
    """Its site's policy has changed while it was dead: the script of its earlier life must not go on alone."""

    def another_user(agent: Process, job: str) -> None:
        resources = agent.kit / "local/resources.yml"
        resources.write_text(yaml.safe_dump({**yaml.safe_load(resources.read_text()), "user": "nobody-of-that-name"}))

    with fresh.session() as session:
        session.abort(without_its_agent(fresh, session, another_user))


def test_a_job_whose_folder_can_not_be_used_any_more_does_not_keep_its_agent_down(fresh: Federation) -> None:
    def no_home(agent: Process, job: str) -> None:
        home = agent.state / "jobs" / job / "home"
        shutil.rmtree(home)
        home.touch()

    with fresh.session() as session:
        job = without_its_agent(fresh, session, no_home)
        with pytest.raises(JobError, match=r"site-2: it refuses to go on: .*File exists"):
            session.wait(job, 120)
        assert session.show(job)["sites"]["site-2"]["state"] == "failed"
        fresh.registered("site-2")


def test_a_submission_that_never_arrived_whole_ends_too(fresh: Federation) -> None:
    with fresh.session() as session:
        spec = parse_spec({"name": "half", "script": "train.py", "workflow": {"type": "fedavg", "rounds": 1}})
        bundle = of_bytes(b"never sent" * 100_000)
        sealed = seal(session.kit, "half-1", bundle.id, bundle.length, None)
        document, signature, certificate = sealed
        request = pb.SubmitRequest(
            job="half-1",
            envelope=pb.Envelope(document=document, signature=signature, certificate=certificate),
            spec=json.dumps(spec.document()).encode(),
            bundle=pb.Manifest(length=bundle.length, leaves=bundle.leaves),
        )
        assert not session._connection.hub.submit(request, timeout=60).complete
        assert session.show("half-1")["state"] == "RECEIVING"
        fresh.server.kill()
        with sqlite3.connect(fresh.server.state / "hub.db") as db:
            db.execute("UPDATE jobs SET submitted = submitted - ?", (SUBMIT_WITHIN_S,))
        db.close()
        fresh.server.start()
        fresh.registered("site-1")
        with pytest.raises(JobError, match="its files did not arrive within 24 hours"):
            session.wait("half-1", 120)


# --- after a reboot


def rebooted(fed: Federation) -> None:
    """What a reboot leaves: no process, another boot id than that of all records, and of what was not synced nothing
    that could be relied on."""
    for state, database in [(fed.server.state, "hub.db"), *((site.state, "agent.db") for site in fed.sites.values())]:
        with sqlite3.connect(state / database) as db:
            for (blob,) in db.execute("SELECT id FROM blobs WHERE boot IS NOT NULL"):
                path = state / "blobs" / blob.hex()
                path.write_bytes(bytes(path.stat().st_size))
            db.execute("UPDATE blobs SET boot = 'before' WHERE boot IS NOT NULL")
            for job, process in db.execute("SELECT id, process FROM jobs WHERE process IS NOT NULL").fetchall():
                pid, started, _ = json.loads(process)
                # the number and the start time may well be those of another process now: the test's own
                mine = [os.getpid(), processes.start_time(os.getpid()), "before"] if pid and started else None
                db.execute("UPDATE jobs SET process = ? WHERE id = ?", (json.dumps(mine), job))
        db.close()


def test_after_a_reboot_of_all_machines_the_job_goes_on(fresh: Federation) -> None:
    with fresh.session() as session:
        marks = fresh.root / "marks"
        config = {"marks": str(marks), "seconds": 0.5}
        workflow = {"type": "fedavg", "rounds": ROUNDS, "model": {"tensors": {"w": [50_000]}}, "min_sites": 3}
        job = session.submit(fresh.job("reboot", SLOW, config=config, workflow=workflow))
        at_round(session, job, 2)
        until(lambda: len((marks / "site-1.txt").read_text().split()) > 2, what="a task is at work")
        scripts = job_processes(job)
        for process in [fresh.server, *fresh.sites.values()]:
            process.kill()
        for script in scripts.values():
            script.kill()
        until(lambda: not job_processes(job))
        rebooted(fresh)
        fresh.start()
        session.wait(job, 120)
        model = load_file(session.download(job, fresh.root / "results") / "model.safetensors")
        assert np.array_equal(model["w"], np.full(50_000, 2.0 * ROUNDS, np.float32))
        for site in fresh.sites:
            computed = (marks / f"{site}.txt").read_text().split()
            assert len(computed) <= ROUNDS + 1, f"{site} computed a finished result again: {computed}"


# --- with the server's state in PostgreSQL


@pytest.mark.slow
def test_a_killed_server_and_a_killed_database_cost_no_finished_piece(
    stopped: Federation, postgres_server: Server, postgres_url: str
) -> None:
    stopped.server.env = {**stopped.server.env, "FEDSPAN_STORE": postgres_url}
    stopped.start()
    with stopped.session() as session:
        job, marks = submit(stopped, session, seconds=0.4)
        at_round(session, job, 1)
        stopped.server.kill()
        stopped.server.start()
        stopped.registered(*stopped.sites)
        at_round(session, job, 3)
        postgres_server.stop("immediate")
        time.sleep(2.0)
        postgres_server.start()
        ends_well(stopped, session, job, marks)
        assert [entry["round"] for entry in session.show(job)["history"]] == list(range(ROUNDS))
    assert not (stopped.server.state / "hub.db").exists()
