"""docs/workflows.md: its examples run as they stand, in a real federation and in the simulator, with the same bits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation
from safetensors.numpy import load_file

from fl_runtime.simulator import simulate

PAGE = (Path(__file__).parents[2] / "docs/workflows.md").read_text()
FILES = {name: text for _, name, text in re.findall(r"```(\w+) (\S+)\n(.*?)```", PAGE, re.DOTALL)}
TRAIN = """
import fl_runtime.client as flare
flare.init()
number = int(flare.get_site_name()[-1])
while flare.is_running():
    model = flare.receive()
    loss = float(model.params["w"].sum()) * (-1) ** model.current_round
    model.params["w"] += number
    flare.send(flare.FLModel(params=model.params, metrics={"loss": loss}, meta={"NUM_STEPS_CURRENT_ROUND": number}))
"""


def both(fed: Federation, tmp_path: Path, folder: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The real federation's model and history, after a look at the simulator's."""
    (folder / "train.py").write_text(TRAIN)
    with fed.session() as session:
        job = session.submit(folder)
        view = session.wait(job, 120)
        model = session.download(job, tmp_path / "real") / "model.safetensors"
    done = simulate(folder, sites=3, workers=2, to=tmp_path / "simulated", job_id=job)
    assert (done.folder / "model.safetensors").read_bytes() == model.read_bytes()
    return load_file(model)["w"], view["history"]


def written(fed: Federation, name: str, **files: str) -> Path:
    folder = fed.root / "jobs" / name
    folder.mkdir(parents=True)
    for key, text in files.items():
        (folder / key.replace("_", ".")).write_text(text)
    return folder


def test_the_controller_in_40_lines(running: Federation, tmp_path: Path) -> None:
    assert sum(bool(line.strip()) for line in FILES["mine.py"].splitlines()) <= 40
    folder = written(running, "careful", mine_py=FILES["mine.py"], job_yml=FILES["job.yml"])
    got, history = both(running, tmp_path, folder)
    w, lr, before = np.zeros(5, np.float32), 1.0, None
    for number in range(4):
        loss = float(w.sum()) * (-1) ** number
        lr = lr / 2 if before is not None and loss > before else lr
        before = loss
        mean = sum(n * (w + np.float32(n)).astype(float) for n in (1, 2, 3)) / 6
        w = (w + lr * (mean - w)).astype(np.float32)
    assert got == pytest.approx(w, rel=1e-6)
    assert lr < 1
    assert [entry["metrics"]["loss"] for entry in history][-1] == pytest.approx(before)


def test_the_workflow_of_files(running: Federation, tmp_path: Path) -> None:
    folder = written(running, "ring", ring_py=FILES["ring.py"], job_yml=FILES["ring.yml"])
    got, history = both(running, tmp_path, folder)
    assert [entry["pair"] for entry in history] == [["site-3", "site-1"], ["site-1", "site-2"], ["site-2", "site-3"]]
    assert got.tolist() == [2.0 + 1.5 + 2.5] * 5
