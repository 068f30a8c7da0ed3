"""Controllers and Executors written for NVIDIA FLARE run here after other import lines, and survive kill -9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from federation import Federation, until
from flare_programs import (
    COUNTING_EXECUTOR,
    CYCLIC,
    ERRAND_EXECUTOR,
    ERRANDS,
    MODEL_CONTROLLER,
    NUMPY_EXECUTOR,
    SCATTER,
    STANDING,
    adapted,
)
from safetensors.numpy import load_file
from scripts import ADD

from fl_runtime.errors import JobError
from fl_runtime.simulator import simulate

MEAN = 14.0 / 6  # of 1, 2, 3, weighing 1, 2, 3


def folder(fed: Federation, name: str, **files: str) -> Path:
    made = fed.root / "jobs" / name
    made.mkdir(parents=True, exist_ok=True)
    for module, text in files.items():
        (made / f"{module}.py").write_text(adapted(text))
    return made


def write(made: Path, **document: Any) -> Path:
    (made / "job.yml").write_text(yaml.safe_dump({"name": made.name, **document}))
    return made


def run(fed: Federation, made: Path) -> tuple[dict[str, np.ndarray], str, dict[str, Any]]:
    with fed.session() as session:
        job = session.submit(made)
        view = session.wait(job, 120)
        log = "".join(text for _, text in session.logs(job, "server", follow=True))
        target = session.download(job, fed.root / "results")
    model = target / "model.safetensors"
    return load_file(model) if model.exists() else {}, log, view


AGGREGATOR = {
    "path": "fl_runtime.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator"
}


def test_scatter_and_gather_with_a_numpy_executor(running: Federation) -> None:
    made = folder(running, "scatter", mine=SCATTER, worker=NUMPY_EXECUTOR)
    write(
        made,
        controller={"path": "mine.Scatter", "args": {"num_rounds": 2}, "components": {"aggregator": AGGREGATOR}},
        executor={"path": "worker.AddExecutor", "tasks": ["train"]},
    )
    model, log, _ = run(running, made)
    done = simulate(made, sites=3, workers=2, to=running.root / "simulated")
    assert np.array_equal(load_file(done.folder / "model.safetensors")["w"], model["w"])
    assert model["w"] == pytest.approx(np.full(4, 2 * MEAN), rel=1e-6)
    assert log.count("heard ['site-1', 'site-2', 'site-3']") == 2
    assert log.count("task done: 3 results") == 2
    assert "stopped" in log


def test_a_model_controller_and_a_script_of_the_client_api(running: Federation) -> None:
    made = folder(running, "models", mine=MODEL_CONTROLLER, train=ADD.replace("fl_runtime.client", "nvflare.client"))
    write(
        made,
        controller={"path": "mine.Mine", "args": {"num_clients": 3, "num_rounds": 2}},
        workflow={"model": {"tensors": {"w": [4]}}},
        script="train.py",
    )
    model, log, _ = run(running, made)
    assert model["w"] == pytest.approx(np.full(4, 2 * MEAN), rel=1e-6)
    assert "heard ['site-1', 'site-2', 'site-3'] mean [0.0, 0.0, 0.0]" in log
    assert "Finished FedAvg." in log


def test_cyclic_relays_in_the_given_order(running: Federation) -> None:
    made = folder(running, "relay", mine=CYCLIC, worker=NUMPY_EXECUTOR)
    write(made, controller={"path": "mine.Cyclic"}, executor={"path": "worker.AddExecutor"})
    model, log, _ = run(running, made)
    assert "order site-3 site-2 site-1" in log
    assert model["w"].tolist() == [(3 * 2 + 2) * 2 + 1.0] * 4


def test_standing_tasks_cancelling_and_a_broken_executor(running: Federation) -> None:
    made = folder(running, "standing", mine=STANDING, worker=COUNTING_EXECUTOR)
    write(made, controller={"path": "mine.Standing"}, executor={"path": "worker.Counting"})
    _, log, _ = run(running, made)
    assert "TaskCompletionStatus.OK TaskCompletionStatus.CANCELLED" in log
    assert "('site-1', 'OK'), ('site-2', 'OK'), ('site-3', 'EXECUTION_EXCEPTION')" in log


def test_every_call_with_every_callback(running: Federation) -> None:
    made = folder(running, "errands", mine=ERRANDS, worker=ERRAND_EXECUTOR)
    write(made, controller={"path": "mine.Errands"}, executor={"path": "worker.ErrandExecutor"})
    with running.session() as session:
        job = session.submit(made)
        with pytest.raises(JobError, match="that was all"):  # system_panic ends the job with its reason
            session.wait(job, 120)
        log = "".join(text for _, text in session.logs(job, "server", follow=True))
        slow = "".join(text for _, text in session.logs(job, "site-1", follow=True))
    told = [line.partition("Errands: ")[2] for line in log.splitlines() if "Errands: " in line]
    three = ", ".join(f"after site-{n}" for n in (1, 2, 3)) + ", " + ", ".join(f"before site-{n}" for n in (1, 2, 3))
    assert told == [
        "event _start_run",
        "send: before site-2, after site-2, received site-2 OK, done quick OK",
        f"two are enough: {three}, done site-3 is slow OK, received site-1 OK, received site-2 OK",
        "timeout: before site-1, after site-1, done slow TIMEOUT",
        "relay: before site-1, after site-1, received site-1 OK, before site-2, after site-2, before site-3,"
        " after site-3, received site-3 OK, done site-2 is slow OK",
        "aborted: before site-1, after site-1, done slow ABORTED",
        "broken: ERROR a callback of mine",
        "own data: [('site-1', ([1, 1], 1)), ('site-2', ([2, 2], 2)), ('site-3', ([3, 3], 3))]",
        "that was all",
        "stopped",
        "event _end_run",
    ]
    assert slow.count("told to stop") == 2


def test_an_executor_serves_a_built_in_workflow_and_a_script_serves_a_controller(running: Federation) -> None:
    made = folder(running, "built-in", worker=NUMPY_EXECUTOR)
    workflow = {"type": "fedavg", "rounds": 2, "model": {"tensors": {"w": [4]}}}
    write(made, workflow=workflow, executor={"path": "worker.AddExecutor"})
    model, _, _ = run(running, made)
    assert model["w"] == pytest.approx(np.full(4, 2 * MEAN), rel=1e-6)
    made = folder(running, "mixed", mine=SCATTER, train=ADD)
    weights = {**AGGREGATOR, "args": {"expected_data_kind": "WEIGHTS"}}
    (made / "mine.py").write_text((made / "mine.py").read_text().replace("value + diff[name]", "diff[name]"))
    components = {"aggregator": weights}
    write(
        made,
        controller={"path": "mine.Scatter", "args": {"num_rounds": 2}, "components": components},
        script="train.py",
    )
    model, _, _ = run(running, made)
    assert model["w"] == pytest.approx(np.full(4, 2 * MEAN), rel=1e-6)


@pytest.mark.parametrize("where", ["site-2", "rotate"])
@pytest.mark.parametrize(
    "kind", ["fedavg", "fedopt", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("median", "scaffold"))]
)
def test_a_site_aggregates_with_the_same_bits_as_the_server(running: Federation, where: str, kind: str) -> None:
    models = {}
    for place in ("server", where):
        workflow: dict[str, Any] = {"type": kind, "rounds": 3, "aggregate_at": place}
        if kind == "median":
            workflow.update(type="fedavg", aggregator="median")
        workflow["model"] = {"tensors": {"w": [40, 1000]}, "init": "normal"}
        controls = 'optimizer_params={"c_delta." + name: value * 0 + 0.1 for name, value in model.params.items()}, '
        script = ADD.replace("metrics=", f"{controls}metrics=") if kind == "scaffold" else ADD
        made = running.job(f"at-{kind}-{place}", script, workflow=workflow)
        models[place], _, view = run(running, made)
        at = [entry.get("aggregated_at") for entry in view["history"]]
        assert (
            at
            == {
                "server": [None] * 3,
                "site-2": ["site-2"] * 3,
                "rotate": ["site-1", "site-2", "site-3"],
            }[place]
        )
    assert np.array_equal(models["server"]["w"], models[where]["w"])


def test_checkpoints_lie_in_the_servers_job_folder(running: Federation) -> None:
    made = running.job(
        "checkpoints",
        ADD,
        workflow={"type": "fedavg", "rounds": 2, "model": {"tensors": {"w": [50_000]}}, "best": "mean"},
    )
    with running.session() as session:
        job = session.submit(made)
        session.wait(job, 120)
    place = running.server.state / "jobs" / job / "checkpoints"
    assert load_file(place / "last.safetensors")["w"][0] == pytest.approx(2 * MEAN, rel=1e-6)
    about = json.loads((place / "last.json").read_text())
    assert (about["round"], about["tensors"]) == (1, {"w": {"dtype": "F32", "shape": [50_000]}})
    assert json.loads((place / "best.json").read_text())["metric"] == "mean"


def test_a_killed_controller_replays_its_control_flow(fresh: Federation) -> None:
    made = folder(
        fresh,
        "killed",
        mine=SCATTER,
        worker=NUMPY_EXECUTOR.replace("number = int", "import time; time.sleep(0.1); number = int"),
    )
    write(
        made,
        controller={"path": "mine.Scatter", "args": {"num_rounds": 8}, "components": {"aggregator": AGGREGATOR}},
        executor={"path": "worker.AddExecutor"},
    )
    with fresh.session() as session:
        job = session.submit(made)
        for count in (2, 5):
            until(lambda count=count: "".join(t for _, t in session.logs(job, "server")).count("task done") >= count)
            for process in psutil.process_iter(["environ", "cmdline"]):
                command = " ".join(process.info["cmdline"] or [])
                if (process.info["environ"] or {}).get("FEDSPAN_JOB") == job and "workflow.process" in command:
                    process.kill()
        session.wait(job, 120)
        text = "".join(t for _, t in session.logs(job, "site-1"))
        model = load_file(session.download(job, fresh.root / "results") / "model.safetensors")
    assert model["w"] == pytest.approx(np.full(4, 8 * MEAN), rel=1e-6)
    assert [text.count(f"round {number}\n") for number in range(8)] == [1] * 8, "a site computed a round twice"
