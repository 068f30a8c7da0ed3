"""Workflows are replayed after a crash: the same calls get their answers, another one fails the job."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from federation import Federation, job_processes, until
from flare_programs import NUMPY_EXECUTOR, SCATTER, adapted
from safetensors.numpy import load_file
from scripts import ADD

from fl_runtime.admin import Session
from fl_runtime.errors import JobError

MEAN = 14 / 6  # of 1, 2 and 3, weighted by themselves
AGGREGATOR = {
    "path": "fl_runtime.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator"
}

# Three calls in each round, and a pause after the second: there the test kills its process.
CALLS = """
import pathlib, time
from fl_runtime.workflow.base import Workflow

launches = pathlib.Path(__file__).with_name("launches")
with open(launches, "a") as file:
    file.write("x")

class Mine(Workflow):
    def run(self):
        if self.model is None:
            self.model = self.initial_model()
        seen = self.state.setdefault("seen", [])
        for number in self.rounds(3):
            drawn = [float(self.rng.random()), self.now(), %s]
            answers = []
            for step in range(3):
                results = self.broadcast_and_wait("train", self.model, meta={"step": step, "drawn": drawn})
                answers.append([(result.site, result.meta["metrics"]) for result in results])
                print("call", number, step, "done", flush=True)
                if (number, step) == (1, 1) and launches.read_text() == "x":
                    time.sleep(30)
            seen.append([drawn, answers])
            self.record(drawn=drawn, answers=answers)
"""


def own(fed: Federation, name: str, drawn: str) -> Path:
    workflow = {"type": "controller", "path": "mine.Mine", "model": {"tensors": {"w": [4]}}}
    folder = fed.job(name, ADD, workflow=workflow)
    (folder / "mine.py").write_text(CALLS % drawn)
    return folder


def kill_in_the_pause(session: Session, job: str) -> None:
    until(lambda: "call 1 1 done" in "".join(text for _, text in session.logs(job, "server")), what="the pause")
    job_processes(job)["server"].kill()


def test_a_replay_gets_what_was_recorded_and_asks_only_for_what_is_left(running: Federation) -> None:
    with running.session() as session:
        job = session.submit(own(running, "replayed", "0.0"))
        kill_in_the_pause(session, job)
        view = session.wait(job, 120)
        text = "".join(text for _, text in session.logs(job, "site-1"))
    assert [entry["round"] for entry in view["history"]] == [0, 1, 2]
    assert text.count("round ") == 9, "a call was asked again"
    rounds = [json.dumps(entry["drawn"]) for entry in view["history"]]
    assert len(set(rounds)) == 3  # other numbers in each round, the same in its replay: else the digest would differ


def test_a_workflow_that_asks_for_something_else_in_its_replay_fails_the_job(running: Federation) -> None:
    with running.session() as session:
        job = session.submit(own(running, "undetermined", "time.time()"))
        kill_in_the_pause(session, job)
        with pytest.raises(JobError, match=r"not deterministic: call 1 of round 1 was 'train'"):
            session.wait(job, 120)


@pytest.mark.parametrize("journal", ["1GB", "1500KB"])
def test_a_control_flow_without_rounds_is_replayed_while_its_journal_fits(running: Federation, journal: str) -> None:
    """Each round keeps a model of 400 KB and three results: 1.6 MB."""
    folder = running.job(f"flow-{journal}", "")
    (folder / "train.py").unlink()
    slowly = NUMPY_EXECUTOR.replace("number = int", "import time; time.sleep(0.3); number = int")
    (folder / "mine.py").write_text(adapted(SCATTER.replace("np.zeros(4,", "np.zeros(100_000,")))
    (folder / "trainer.py").write_text(adapted(slowly))
    workflow = {
        "type": "controller",
        "path": "mine.Scatter",
        "args": {"num_rounds": 5},
        "components": {"aggregator": AGGREGATOR},
        "journal": journal,
    }
    document = {"name": folder.name, "workflow": workflow, "executor": {"path": "trainer.AddExecutor"}}
    (folder / "job.yml").write_text(yaml.safe_dump(document))
    with running.session() as session:
        job = session.submit(folder)

        def done() -> int:
            return "".join(text for _, text in session.logs(job, "server")).count("task done")

        until(lambda: done() >= 3, what="three rounds")
        job_processes(job)["server"].kill()
        if journal == "1GB":
            session.wait(job, 120)
        else:
            with pytest.raises(JobError, match=r"not resumable.*had outgrown 1500000 bytes.*the last model is kept"):
                session.wait(job, 120)
        model = load_file(session.download(job, running.root / f"results-{journal}") / "model.safetensors")["w"]
    rounds = model[0] / MEAN
    assert model == pytest.approx(np.full(100_000, model[0]), rel=1e-6)
    assert rounds == pytest.approx(5 if journal == "1GB" else round(float(rounds)), rel=1e-6)
    assert rounds > 1.5
