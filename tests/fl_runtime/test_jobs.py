"""Jobs from submission to download, on a real federation of processes."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, until
from safetensors.numpy import load_file, save_file
from scripts import ADD, FOREVER, REGRESSION

from fl_runtime.agent import cgroups
from fl_runtime.errors import FlError, JobError, JobSpecError

W = {"tensors": {"w": [5]}}


def regression_reference(tables, w, rounds: int, rate: float) -> np.ndarray:
    for _ in range(rounds):
        results = []
        for x, y in tables:
            local = w.astype(np.float64)
            for _ in range(3):
                local = local - rate * x.T @ (x @ local - y) / len(x)
            results.append((len(x), local.astype(np.float32)))
        total = sum(n for n, _ in results)
        w = sum(n / total * local.astype(np.float64) for n, local in results).astype(np.float32)
    return w


def test_fedavg_gives_what_a_float64_reference_gives(running: Federation) -> None:
    rng = np.random.default_rng(3)
    truth, tables = rng.normal(size=5), []
    for number, site in enumerate(running.sites):
        x = rng.normal(size=(40 + 30 * number, 5))
        tables.append((x, x @ truth + 0.01 * rng.normal(size=len(x))))
        path = running.root / f"{site}.npz"
        np.savez(path, x=tables[-1][0], y=tables[-1][1])
        running.data(site, table=path)
    folder = running.job(
        "regression",
        REGRESSION,
        data=["table"],
        config={"rate": 0.2},
        workflow={"type": "fedavg", "rounds": 6, "model": W},
    )
    with running.session() as session:
        job = session.submit(folder)
        view = session.wait(job, 120)
        target = session.download(job, running.root / "results")
    got = load_file(target / "model.safetensors")["w"]
    want = regression_reference(tables, np.zeros(5, np.float32), 6, 0.2)
    assert np.abs(got - want).max() <= 1e-7
    losses = [entry["metrics"]["loss"] for entry in view["history"]]
    assert len(losses) == 6
    assert losses[-1] < 0.01 * losses[0]
    assert {site: entry["weight"] for site, entry in view["history"][0]["sites"].items()} == {
        "site-1": 40,
        "site-2": 70,
        "site-3": 100,
    }
    streamed = [
        entry for entry in json.loads((target / "metrics.json").read_text())["metrics"] if entry["key"] == "loss"
    ]
    assert len(streamed) == 18
    assert {entry["step"] for entry in streamed} == set(range(6))


def test_no_row_of_the_data_reaches_the_server_or_the_bundle(running: Federation) -> None:
    row = np.random.default_rng(11).normal(size=5)
    needle = row.tobytes()
    for site in running.sites:
        path = running.root / f"{site}-secret.npz"
        x = np.tile(row, (8, 1))
        np.savez(path, x=x, y=x.sum(1))
        assert needle in path.read_bytes()
        running.data(site, table=path)
    folder = running.job(
        "stay", REGRESSION, data=["table"], config={"rate": 0.01}, workflow={"type": "fedavg", "rounds": 2, "model": W}
    )
    with running.session() as session:
        session.wait(session.submit(folder), 120)
    searched = 0
    for path in [*running.server.state.rglob("*"), *(running.root / "jobs").rglob("*")]:
        if path.is_file():
            searched += 1
            assert needle not in path.read_bytes(), path
    assert searched > 3


def test_the_weighted_mean_weighs_by_steps(running: Federation) -> None:
    folder = running.job("weights", ADD, workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        model = load_file(session.download(job, running.root / "results") / "model.safetensors")
    assert model["w"] == pytest.approx(np.full(5, (1 * 1 + 2 * 2 + 3 * 3) / 6), abs=1e-6)


def test_differences_are_added_to_the_global_model(running: Federation) -> None:
    script = ADD.replace(
        "flare.FLModel(params=model.params", "flare.FLModel('DIFF', params={'w': 0 * before['w'] + number}"
    )
    model = {"tensors": {"w": [5]}, "init": "normal", "seed": 4, "scale": 1.0}
    folder = running.job("differences", script, workflow={"type": "fedavg", "rounds": 1, "model": model})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        got = load_file(session.download(job, running.root / "results") / "model.safetensors")["w"]
    start = np.random.default_rng(4).normal(0.0, 1.0, 5).astype(np.float32)
    assert got == pytest.approx(start + 14 / 6, abs=1e-6)


def test_a_model_in_the_bundle_larger_than_a_message_arrives_whole(running: Federation) -> None:
    folder = running.job("large", ADD, workflow={"type": "fedavg", "rounds": 2, "model": "start.safetensors"})
    start = {"w": np.random.default_rng(0).normal(size=(1300, 1000)).astype(np.float32), "b": np.zeros(3, np.float32)}
    save_file(start, folder / "start.safetensors")
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        got = load_file(session.download(job, running.root / "results") / "model.safetensors")
    step = 14 / 6
    assert np.abs(got["w"] - (start["w"] + 2 * step)).max() < 1e-5
    assert got["b"] == pytest.approx(np.full(3, 2 * step), abs=1e-6)


def test_sites_begin_with_their_own_model_when_the_job_gives_none(running: Federation) -> None:
    script = ADD.replace(
        "model = flare.receive()", "model = flare.receive()\n    model.params.setdefault('w', np.ones(2))"
    )
    folder = running.job("none", script, workflow={"type": "fedavg", "rounds": 2})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        got = load_file(session.download(job, running.root / "results") / "model.safetensors")["w"]
    assert got == pytest.approx(np.full(2, 1 + 2 * 14 / 6))


def test_a_job_that_asks_for_data_a_site_has_not_is_refused_with_the_reason(running: Federation) -> None:
    folder = running.job("lacking", ADD, data=["x-rays"], workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        with pytest.raises(JobError) as caught:
            session.wait(job, 120)
        view = session.show(job)
    assert "asks for the data 'x-rays', which this site does not declare" in str(caught.value)
    assert {entry["state"] for entry in view["sites"].values()} == {"refused"}
    assert view["state"] == "FAILED"


def broken_policy(kit: Path, state: Path) -> None:
    (kit / "local/policy.yml").write_text("submitters: [lead]\nisolation: [\n")


def no_folder_for_jobs(kit: Path, state: Path) -> None:
    shutil.rmtree(state / "jobs", ignore_errors=True)
    (state / "jobs").touch()


@pytest.mark.parametrize(("spoil", "why"), [(broken_policy, "policy.yml"), (no_folder_for_jobs, "Not a directory")])
def test_a_site_that_can_not_begin_says_so_and_the_job_does_not_wait_for_it(
    running: Federation, spoil: Callable[[Path, Path], None], why: str
) -> None:
    site = running.sites["site-2"]
    policy = (site.kit / "local/policy.yml").read_text() if (site.kit / "local/policy.yml").exists() else None
    workflow = {"type": "fedavg", "rounds": 1, "model": W, "min_sites": 3}
    folder = running.job("spoilt", ADD, workflow=workflow)
    spoil(site.kit, site.state)
    try:
        with running.session() as session:
            job = session.submit(folder)
            with pytest.raises(JobError) as caught:
                session.wait(job, 120)
            assert session.show(job)["sites"]["site-2"]["state"] == "refused"
    finally:
        if policy is None:
            (site.kit / "local/policy.yml").unlink(missing_ok=True)
        else:
            (site.kit / "local/policy.yml").write_text(policy)
        if not (site.state / "jobs").is_dir():
            (site.state / "jobs").unlink(missing_ok=True)
    assert "2 of 3 needed sites take part. site-2: " in str(caught.value)
    assert why in str(caught.value)
    with running.session() as session:
        session.wait(session.submit(folder), 120)  # it is mended, and takes part again


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("value *= np.nan", "tensor 'w' holds NaN or infinity"),
        ("model.params['w'] = value[:2]", "tensor 'w' has the shape [2], not [5]"),
        ("model.params['w'] = value.astype(np.float64)", "tensor 'w' is F64, not F32"),
        ("model.params['extra'] = value", "it holds an unknown tensor 'extra'"),
    ],
)
def test_a_result_that_is_not_what_it_should_be_is_refused_with_the_sites_name(
    running: Federation, change: str, why: str
) -> None:
    script = ADD.replace("        value += number", f"        if number == 2:\n            {change}\n            break")
    folder = running.job("wrong", script, workflow={"type": "fedavg", "rounds": 1, "model": W, "min_sites": 2})
    with running.session() as session:
        job = session.submit(folder)
        view = session.wait(job, 120)
    assert view["history"][0]["missing"] == {"site-2": why}
    assert set(view["history"][0]["sites"]) == {"site-1", "site-3"}
    with running.session() as session:
        folder = running.job("wrong", script, workflow={"type": "fedavg", "rounds": 1, "model": W})
        with pytest.raises(JobError, match="site-2: " + why.replace("[", r"\[")):
            session.wait(session.submit(folder), 120)


def test_abort_ends_every_process_also_one_that_ignores_signals(running: Federation) -> None:
    folder = running.job("forever", FOREVER, workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        until(lambda: {"open"} == {e["task"] for e in session.show(job)["sites"].values()}, what="tasks out")
        session.abort(job)
        assert session.show(job)["state"] == "ABORTED"
        assert "by ana@example.org" in session.show(job)["cause"]
        until(lambda: not processes_of(job), what="processes gone")
        assert session.abort(job)["state"] == "ABORTED"


def processes_of(job: str) -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("FEDSPAN_JOB") == job:
            found.append(str(process.info["cmdline"]))
    return found


@pytest.mark.slow
def test_a_job_that_takes_more_memory_than_it_asked_for_fails_with_that_cause_and_its_control_group_goes(
    running: Federation,
) -> None:
    script = "print(open('/proc/self/cgroup').read(), flush=True)\nimport numpy as np\n"
    script += "kept = [np.ones(50_000_000) for _ in range(20)]\n"
    workflow = {"type": "fedavg", "rounds": 1, "model": W}
    resources = {"memory": "300MB"}
    folder = running.job("greedy", script, sites=["site-1"], workflow=workflow, resources=resources)
    with running.session() as session:
        job = session.submit(folder)
        with pytest.raises(JobError, match=r"needed more than its 0\.30 GB of memory|MemoryError"):
            session.wait(job, 120)
        printed = "".join(text for _, text in session.logs(job, "site-1"))
    if base := cgroups._base():  # else the keeper has counted
        group = cgroups._name(running.sites["site-1"].state, job)
        assert f"/{group}" in printed
        until(lambda: not (base[0] / group).exists(), what="its group is gone")


def test_a_script_that_fails_is_started_again_and_then_given_up_with_its_last_words(running: Federation) -> None:
    script = "import sys\nprint('no module named good luck')\nsys.exit(3)\n"
    folder = running.job("failing", script, workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        with pytest.raises(JobError, match=r"code 3\): no module named good luck"):
            session.wait(job, 120)
        texts = ["".join(text for _, text in session.logs(job, site)) for site in ("site-1", "site-2", "site-3")]
    # the first site that gives up ends the job, also for those that would have tried again
    assert max(text.count("no module named good luck") for text in texts) == 4


def test_logs_are_followed_to_the_end(running: Federation) -> None:
    folder = running.job("logs", ADD, workflow={"type": "fedavg", "rounds": 3, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        text = "".join(text for site, text in session.logs(job, "site-2", follow=True) if site == "site-2")
    assert text == "round 0\nround 1\nround 2\n"


def test_a_final_evaluation_gives_the_last_models_metrics(running: Federation) -> None:
    answer = "flare.send(flare.FLModel(metrics={'mean': float(model.params['w'].mean())}))"
    script = ADD.replace("before =", f"if flare.is_evaluate():\n        {answer}\n        continue\n    before =")
    workflow = {"type": "fedavg", "rounds": 1, "model": W, "final_evaluation": True}
    folder = running.job("final", script, workflow=workflow)
    with running.session() as session:
        view = session.wait(session.submit(folder), 120)
    assert view["history"][-1]["metrics"]["mean"] == pytest.approx(14 / 6)


def test_only_the_sites_that_the_job_names_take_part(running: Federation) -> None:
    folder = running.job("two", ADD, sites=["site-1", "site-3"], workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        view = session.wait(session.submit(folder), 120)
    assert set(view["sites"]) == {"site-1", "site-3"}


def test_a_job_waits_for_its_sites_and_says_so(running: Federation) -> None:
    folder = running.job(
        "waiting", ADD, sites=["site-1", "site-9"], workflow={"type": "fedavg", "rounds": 1, "model": W}
    )
    with running.session() as session:
        job = session.submit(folder)
        until(lambda: session.show(job)["state"] == "QUEUED")
        assert session.show(job)["detail"] == "waiting for sites: 1 of 2 connected"
        session.abort(job)


def test_submitting_the_same_job_twice_changes_nothing(running: Federation) -> None:
    folder = running.job("twice", ADD, workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        before = len(session.jobs())
        time.sleep(1.1)  # the envelope of the second submission bears another time
        assert session.submit(folder, job_id=job) == job
        assert len(session.jobs()) == before


def test_a_zip_described_in_json_is_a_job_too(running: Federation, tmp_path: Path) -> None:
    description = {
        "name": "zipped",
        "script": "code/train.py",
        "workflow": {"type": "fedavg", "rounds": 1, "model": W},
        "tracking": {"csv": False, "plot": False},
    }
    with zipfile.ZipFile(tmp_path / "job.zip", "w") as archive:
        archive.writestr("zipped/job.json", json.dumps(description))
        archive.writestr("zipped/code/train.py", ADD)
    with running.session() as session:
        view = session.wait(session.submit(tmp_path / "job.zip"), 120)
        results = session.download(view["id"], tmp_path)
    assert view["history"][0]["metrics"]["mean"] == 0.0
    assert sorted(path.name for path in results.iterdir()) == ["logs", "metrics.json", "model.safetensors"]


def test_another_job_under_a_taken_id_is_refused(running: Federation) -> None:
    with running.session() as session:
        job = session.submit(running.job("first", ADD, workflow={"type": "fedavg", "rounds": 1, "model": W}))
        another = running.job("second", ADD, workflow={"type": "fedavg", "rounds": 2, "model": W})
        with pytest.raises(FlError, match="another job"):
            session.submit(another, job_id=job)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"scirpt": "train.py"}, "did you mean 'script'"),
        ({"workflow": {"type": "fedavg", "rounds": "many"}}, "workflow.rounds must be a number"),
        ({"script": "../train.py"}, "must lie inside"),
        ({"data": "digits"}, "data must be a list"),
    ],
)
def test_a_wrong_job_is_refused_before_it_is_sent(running: Federation, document: dict, why: str) -> None:
    folder = running.job("typo", ADD)
    text = json.loads(json.dumps({"name": "typo", "script": "train.py", **document}))
    (folder / "job.yml").write_text(json.dumps(text))
    with running.session() as session, pytest.raises(JobSpecError, match=why):
        session.submit(folder)


def test_an_unknown_workflow_fails_with_the_ones_there_are(running: Federation) -> None:
    folder = running.job("odd", ADD, workflow={"type": "fedmagic"})
    with running.session() as session, pytest.raises(JobError, match=r"there are: .*fedavg"):
        session.wait(session.submit(folder), 120)
