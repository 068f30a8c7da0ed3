"""Filters and codecs end to end: a real federation, noise drawn once, deltas with a base, and what it weighs."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3

import numpy as np
import psutil
import pytest
import yaml
from federation import Federation, until
from safetensors.numpy import load_file
from scripts import ADD, SLOW

from fl_runtime.admin import Session

SIZE = 40_000


def workflow(rounds: int = 2, size: int = SIZE, **more: object) -> dict[str, object]:
    model = {"tensors": {"w": [size]}}
    return {"workflow": {"type": "fedavg", "rounds": rounds, "model": model, "min_sites": 3, **more}}


def policy(fed: Federation, site: str, **document: object) -> None:
    (fed.sites[site].kit / "local/policy.yml").write_text(yaml.safe_dump(document))


def result(fed: Federation, session: Session, job: str) -> np.ndarray:
    session.wait(job, 120)
    return load_file(session.download(job, fed.root / "results") / "model.safetensors")["w"]


def test_a_jobs_filters_come_first_and_the_sites_last(running: Federation) -> None:
    """The job clips each value to 1; site-3's owner allows 0.5 at most. The mean is weighted by 1, 2 and 3."""
    policy(running, "site-3", filters={"results": [{"type": "clip_value", "limit": 0.5}]})
    filters = {"results": [{"type": "clip_value", "limit": 1.0}]}
    try:
        with running.session() as session:
            job = session.submit(running.job("clipped", ADD, filters=filters, **workflow(1)))
            assert np.allclose(result(running, session, job), (1 * 1 + 2 * 1 + 3 * 0.5) / 6)
    finally:
        policy(running, "site-3")


SMUGGLER = """
import fl_runtime.workflow.nodes as nodes

nodes.perform = lambda work, new_file: ({"outputs": ["model"], "notes": {"smuggled": 1}, "meta": {}}, None)
"""


def test_a_site_with_filters_does_not_aggregate_and_the_server_does(running: Federation) -> None:
    """The aggregation would be done by the job's script, whose answer to it passes no filter."""
    policy(running, "site-3", filters={"results": [{"type": "clip_value", "limit": 0.5}]})
    try:
        with running.session() as session:
            job = session.submit(running.job("smuggler", SMUGGLER + ADD, **workflow(1, aggregate_at="site-3")))
            assert np.allclose(result(running, session, job), (1 * 1 + 2 * 2 + 3 * 0.5) / 6)
            (entry,) = session.show(job)["history"]
            assert "smuggled" not in entry
            assert "aggregated_at" not in entry
            assert "has filters for results" in entry["missing"]["site-3"]
    finally:
        policy(running, "site-3")


def test_a_failing_filter_fails_the_task_and_nothing_leaves(running: Federation) -> None:
    policy(running, "site-2", filters={"results": [{"type": "clip_norm", "max_norm": -1}]})
    try:
        with running.session() as session:
            job = session.submit(running.job("failing", ADD, **workflow(1, min_sites=2)))
            got = result(running, session, job)
            assert np.allclose(got, (1 * 1 + 3 * 3) / 4)  # without site-2
            (missing,) = [entry["missing"] for entry in session.show(job)["history"]]
            assert "clip_norm failed" in missing["site-2"]
            assert "max_norm must be a positive number" in missing["site-2"]
    finally:
        policy(running, "site-2")


def test_what_arrives_is_filtered_before_the_script_sees_it(running: Federation) -> None:
    filters = {"tasks": [{"type": "clip_value", "limit": 0.25}]}
    with running.session() as session:
        job = session.submit(running.job("tasks", ADD, filters=filters, **workflow(2)))
        # weights 1/6, 2/6, 3/6 of 1, 2, 3: 14/6 in round 0; the second round begins at 0.25
        assert np.allclose(result(running, session, job), 0.25 + 14 / 6)


@pytest.mark.parametrize("codecs", [["zstd"], ["delta", "zstd"]])
def test_codecs_without_loss_change_no_bit_and_are_shorter(running: Federation, codecs: list[str]) -> None:
    with running.session() as session:
        name = "-".join(codecs)
        job = session.submit(running.job(name, ADD, codecs=codecs, **workflow(3)))
        plain = session.submit(running.job(name + "-plain", ADD, **workflow(3)))
        assert np.array_equal(result(running, session, job), result(running, session, plain))
        for entry in session.show(job)["history"]:
            assert entry["wire"]["results"]["plain"] > 3 * 4 * SIZE
            assert entry["wire"]["results"]["ratio"] < 0.1
            assert entry["wire"]["tasks"]["ratio"] < 0.1
        assert all("wire" not in entry for entry in session.show(plain)["history"])


def test_lossy_codecs_in_both_directions_with_bases_on_both_sides(running: Federation) -> None:
    codecs = ["delta", "quantize8"]
    with running.session() as session:
        job = session.submit(running.job("lossy", ADD, codecs=codecs, **workflow(4)))
        assert np.allclose(result(running, session, job), 4 * 14 / 6, atol=1e-3)
        history = session.show(job)["history"]
        assert all(entry["wire"]["results"]["ratio"] < 0.3 for entry in history)
        assert all(entry["wire"]["tasks"]["ratio"] < 0.3 for entry in history)


OWN = """
from fl_runtime.apis.dxo import DataKind
from fl_runtime.apis.dxo_filter import DXOFilter

class Half(DXOFilter):
    def __init__(self, factor):
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)
        self.factor = factor

    def process_dxo(self, dxo, shareable, fl_ctx):
        for name in dxo.data:
            dxo.data[name] = dxo.data[name] * self.factor
        return dxo
"""


def test_a_jobs_own_filter_in_flares_manner_where_every_site_names_it(running: Federation) -> None:
    filters = {"results": [{"path": "own.Half", "args": {"factor": 0.5}}]}
    folder = running.job("custom", ADD, filters=filters, **workflow(1))
    (folder / "own.py").write_text(OWN)
    for site in running.sites:
        policy(running, site, job_filters=["own.py"])
    try:
        with running.session() as session:
            assert np.allclose(result(running, session, session.submit(folder)), 0.5 * 14 / 6)
            policy(running, "site-1", scripts=["any", "own.py"])  # it may run as a script, where it is kept apart
            job = session.submit(folder)
            until(lambda: session.show(job)["state"] == "FAILED")
            assert "a job's own filter runs as the agent and must be named there" in str(session.show(job))
    finally:
        for site in running.sites:
            policy(running, site)


def test_a_filter_on_the_server(running: Federation) -> None:
    filters = {
        "server": {"results": [{"type": "clip_value", "limit": 0.5}], "tasks": [{"type": "round", "decimals": 0}]}
    }
    with running.session() as session:
        job = session.submit(running.job("server", ADD, filters=filters, **workflow(2)))
        # round 0: every result is clipped to 0.5; round 1 starts at round(0.5) = 0 on the sites; the update is of 0.5
        assert np.allclose(result(running, session, job), 1.0)


def rows(fed: Federation, who: str, sql: str) -> list[bytes]:
    """One column of a participant's database."""
    state = fed.server.state / "hub.db" if who == "server" else fed.sites[who].state / "agent.db"
    with sqlite3.connect(f"file:{state}?mode=ro", uri=True) as db:
        return [row[0] for row in db.execute(sql)]


def test_noise_is_drawn_once_for_what_leaves(fresh: Federation) -> None:
    """The agent is killed after it has filtered and before it can send: what the server gets are the same bytes."""
    policy(fresh, "site-2", filters={"results": [{"type": "gaussian_noise", "sigma": 1.0}]})
    wait = "while not pathlib.Path(flare.get_config()['go']).exists():\n        time.sleep(0.02)\n    flare.send("
    waits = ADD.replace("import numpy as np", "import pathlib, time").replace("flare.send(", wait)
    go = fresh.marks / "go"
    with fresh.session() as session:
        job = session.submit(fresh.job("noise", waits, config={"go": str(go)}, **workflow(1)))
        until(lambda: rows(fresh, "site-2", "SELECT id FROM tasks WHERE state = 'ready'"))
        fresh.server.process.send_signal(signal.SIGSTOP)  # nothing can leave
        go.touch()
        try:
            sql = "SELECT blob FROM shaped WHERE step = 'filtered' AND blob IS NOT NULL"
            before = until(lambda: rows(fresh, "site-2", sql))
            fresh.sites["site-2"].kill()
        finally:
            fresh.server.process.send_signal(signal.SIGCONT)
        fresh.sites["site-2"].start()
        noise = (result(fresh, session, job) - 14 / 6) * 6 / 2
        assert noise.std() == pytest.approx(1.0, rel=0.05)
        assert rows(fresh, "server", "SELECT result FROM tasks WHERE site = 'site-2'") == before


@pytest.mark.slow
def test_a_killed_server_takes_differences_to_what_it_had_sent_before(fresh: Federation) -> None:
    """It had noised and encoded the model; the sites answer, while it is down, with differences to just those bits."""
    filters = {"server": {"tasks": [{"type": "gaussian_noise", "sigma": 1.0}]}}
    slow = ADD.replace("import numpy as np", "import time").replace("flare.send(", "time.sleep(1)\n    flare.send(")
    with fresh.session() as session:
        codecs = ["delta", "quantize8"]
        job = session.submit(fresh.job("noised", slow, codecs=codecs, filters=filters, **workflow(2)))
        for site in fresh.sites:
            until(lambda site=site: rows(fresh, site, "SELECT id FROM tasks WHERE state = 'ready'"))
        fresh.server.kill()
    for site in fresh.sites:
        until(lambda site=site: rows(fresh, site, "SELECT task FROM shaped WHERE step = 'encoded'"))
    fresh.server.start()
    with fresh.session() as session:
        got = result(fresh, session, job)
        assert abs(got.mean() - 2 * 14 / 6) < 0.1
        assert got.std() == pytest.approx(2**0.5, rel=0.1)  # noise was drawn once in each round
        history = session.show(job)["history"]
        assert not any("missing" in entry for entry in history)
        assert len(history) == 2


@pytest.mark.slow
def test_an_encoded_result_that_comes_rounds_late_counts(running: Federation) -> None:
    """Two rounds have closed without site-3; what it then sends is no difference to a model that is long gone."""
    marks = running.root / "marks" / "late-encoded"
    marks.mkdir(parents=True)
    marks.chmod(0o777)
    config = {"marks": str(marks), "seconds": 5.0, "slow": ["site-3"]}
    settings = workflow(4, deadline=2, late="use")
    settings["workflow"]["min_sites"] = 2  # type: ignore[index]
    folder = running.job("late-encoded", SLOW, config=config, codecs=["delta", "quantize8"], **settings)
    with running.session() as session:
        job = session.submit(folder)
        events: list[dict[str, object]] = []
        view = session.monitor(job, lambda event: events.append(event) and None)
        assert view["state"] == "FINISHED"
        used = [event for event in events if event.get("event") == "late-used"]
        assert ("site-3", 0) in [(event["site"], event["from_round"]) for event in used]
        assert any("site-3" in entry["sites"] for entry in view["history"])
        assert not any(event.get("event") == "refused" for event in events)


def children(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
            if "fl_runtime.filters.run" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_kills_during_filtering_leave_one_result(fresh: Federation) -> None:
    """The filters' process is killed, then the agent: the job ends as if nothing had happened."""
    chain = [{"type": "percentile", "percentile": 0, "gamma": 100}, {"type": "clip_norm", "max_norm": 1e9}]
    filters = {"results": chain}
    with fresh.session() as session:
        job = session.submit(fresh.job("killed", ADD, filters=filters, **workflow(2, 3_000_000)))
        agent = psutil.Process(fresh.sites["site-1"].process.pid)
        child = until(lambda: children(agent))[0]
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: children(agent))
        fresh.sites["site-1"].kill()
        fresh.sites["site-1"].start()
        assert np.allclose(result(fresh, session, job), 2 * 14 / 6)
