"""Jobs by the real command, and what `down` does about them: refuse, abort, fetch."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_world import World

pytestmark = pytest.mark.slow

QUICK = """\
import numpy as np
import fl_runtime.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}, metrics={"accuracy": 0.5}))
"""

ENDLESS = """\
import time
import fl_runtime.client as flare

flare.init()
flare.receive()
time.sleep(600)
"""


def job(folder: Path, name: str, script: str) -> Path:
    """A job's folder."""
    path = folder / name
    path.mkdir()
    (path / "train.py").write_text(script)
    (path / "job.yml").write_text(
        f"name: {name}\nscript: train.py\nworkflow:\n  type: fedavg\n  rounds: 2\n"
        "  model: {tensors: {w: [4]}, init: zeros}\n"
    )
    return path


def test_no_jobs_yet(up: World) -> None:
    assert "no jobs" in up.run("job", "list").ok().out
    assert up.run("job", "show", "nope").code == 2


def test_a_job_is_submitted_followed_and_downloaded(up: World, tmp_path: Path) -> None:
    told = up.run("job", "submit", str(job(tmp_path, "quick", QUICK)), "--wait").ok().out
    assert "round 1" in told
    listed = up.json("job", "list").ok().last
    assert [(entry["name"], entry["state"]) for entry in listed] == [("quick", "FINISHED")]
    name = listed[0]["id"]
    assert "finished" in up.run("job", "show", name).ok().out
    up.run("job", "logs", name).ok()
    up.run("job", "download", name, "--to", str(tmp_path / "here")).ok()
    assert (tmp_path / "here" / name / "model.safetensors").is_file()


def test_down_refuses_while_a_job_runs_and_fetches_what_is_finished(up: World, tmp_path: Path) -> None:
    running = up.json("job", "submit", str(job(tmp_path, "endless", ENDLESS))).ok().last["job"]
    refused = up.run("down", "--yes")
    assert refused.code == 13
    assert running in refused.err
    assert "--abort-jobs" in refused.err
    told = up.run("down", "--yes", "--abort-jobs").ok().out
    assert f"job {running} aborted" in told
    assert "0 left" in told
    results = list((up.fed / "results").iterdir())
    assert [path.name.split("-")[0] for path in results] == ["quick"]
    assert (results[0] / "model.safetensors").is_file()
    assert up.inventory() == []
