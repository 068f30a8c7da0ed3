"""The simulator gives what the real federation gives, bit for bit; its sites share a process and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from federation import Federation
from safetensors.numpy import load_file
from scripts import ADD

from fl_runtime.errors import JobError, JobSpecError
from fl_runtime.simulator import simulate

W = {"tensors": {"w": [5]}, "init": "normal", "seed": 4}

# Uses every global generator, from seeds of its own.
SEEDED = """
import random
import numpy as np
import helper
import fl_runtime.client as flare
flare.init()
number = int(flare.get_site_name().split("-")[1])
random.seed(number)
np.random.seed(number)
table = np.load(flare.get_data("table"))
while flare.is_running():
    model = flare.receive()
    w = model.params["w"]
    w += np.float32(random.gauss(0, 1)) * np.random.normal(size=5).astype(np.float32) + helper.step(table)
    flare.send(flare.FLModel(params={"w": w}, metrics={"m": random.random()},
                             meta={"NUM_STEPS_CURRENT_ROUND": random.randint(1, 9)}))
"""
HELPER = """
state = 0.0
def step(table):
    global state
    state += float(table.mean())
    return np.float32(state)
import numpy as np
"""

# Everything that a process has once, looked at again in each round.
ALONE = """
import logging, os, random, sys
import fl_runtime.client as flare
import numpy as np
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
flare.init()
me = flare.get_site_name()
os.environ["WHO"] = sys.argv[-1] = me
open("mine.txt", "x").close()
mine, seen = [], random.random()
while flare.is_running():
    model = flare.receive()
    mine.append(model.current_round)
    assert (flare.get_site_name(), os.environ["WHO"], sys.argv[-1]) == (me, me, me)
    assert os.listdir() and os.path.exists("mine.txt") and sys.modules["__main__"].me == me
    logging.info("round %s of %s", model.current_round, me)
    flare.log("seen", seen)
    flare.send(flare.FLModel(params={"w": model.params["w"] + len(mine)}, metrics={"draw": random.random()}))
print("end of", me)
"""


def write(folder: Path, script: str, files: dict[str, str] | None = None, **document: object) -> Path:
    folder.mkdir()
    (folder / "train.py").write_text(script)
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    (folder / "job.yml").write_text(yaml.safe_dump({"name": folder.name, "script": "train.py", **document}))
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for number in (1, 2, 3):
        np.save(folder / f"site-{number}.npy", np.random.default_rng(number).normal(size=7))
    return folder


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workflow = {"type": "fedavg", "rounds": 4, "model": W, "sample": 2, "best": "m"}
    folder = tmp_path_factory.mktemp("job") / "seeded"
    return write(folder, SEEDED, {"helper.py": HELPER}, data=["table"], workflow=workflow)


def test_the_same_bits_as_a_real_federation(running: Federation, seeded: Path, tables: Path, tmp_path: Path) -> None:
    for site in running.sites:
        running.data(site, table=tables / f"{site}.npy")
    with running.session() as session:
        job = session.submit(seeded)
        view = session.wait(job, 120)
        real = session.download(job, tmp_path / "real")
    data = {"table": f"{tables}/{{site}}.npy"}
    for isolate in (False, True):
        done = simulate(
            seeded, sites=3, workers=2, isolate=isolate, data=data, to=tmp_path / f"to-{isolate}", job_id=job
        )
        assert (done.folder / "model.safetensors").read_bytes() == (real / "model.safetensors").read_bytes()
        assert (done.folder / "best.safetensors").read_bytes() == (real / "best.safetensors").read_bytes()
        assert (done.folder / "history.csv").read_text() == (real / "history.csv").read_text()
        assert [entry["sites"] for entry in done.view["history"]] == [entry["sites"] for entry in view["history"]]
        assert sorted(path.name for path in (tmp_path / f"to-{isolate}").iterdir()) == [job]  # nothing beside it


def test_sites_that_share_a_worker_share_nothing_else(tmp_path: Path) -> None:
    job = write(tmp_path / "alone", ALONE, args=["x"], workflow={"type": "fedavg", "rounds": 3, "model": W})
    events: list[str] = []
    done = simulate(job, sites=8, workers=1, to=tmp_path / "to", on_event=lambda event: events.append(event["event"]))
    for number in range(1, 9):
        told = (done.folder / f"logs/site-{number}.log").read_text().splitlines()
        assert told == [*(f"round {r} of site-{number}" for r in range(3)), f"end of site-{number}"]
    draws = {entry["draw"] for row in done.view["history"] for entry in row["sites"].values()}
    assert len(draws) == 24  # nobody begins with another's numbers
    assert len(done.view["metrics"]) == 24
    assert "progress" in events
    assert events.count("round") == 3


def test_a_script_that_fails_is_started_again_with_its_task(tmp_path: Path) -> None:
    script = """
import pathlib
import fl_runtime.client as flare
flare.init()
while flare.is_running():
    model = flare.receive()
    if flare.get_site_name() == "site-2" and not pathlib.Path("tried").exists():
        pathlib.Path("tried").touch()
        raise ValueError("no luck")
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}))
"""
    job = write(tmp_path / "once", script, workflow={"type": "fedavg", "rounds": 2, "model": W})
    done = simulate(job, sites=3, workers=1, to=tmp_path / "to")
    assert "ValueError: no luck" in (done.folder / "logs/site-2.log").read_text()
    assert [sorted(entry["sites"]) for entry in done.view["history"]] == [["site-1", "site-2", "site-3"]] * 2


def test_a_site_that_always_fails_ends_the_job_with_its_last_words_and_the_logs(tmp_path: Path) -> None:
    script = (
        "import os\nimport fl_runtime.client as flare\nflare.init()\nflare.receive()\n"
        "if flare.get_site_name() == 'site-1':\n    raise RuntimeError('bad data')\n"
        "if flare.get_site_name() == 'site-3':\n    os.abort()\n"
        "flare.send(flare.FLModel(params={'w': flare.receive().params['w']}))\nflare.is_running()\n"
    )
    job = write(tmp_path / "fails", script, workflow={"type": "fedavg", "rounds": 1, "model": W, "min_sites": 3})
    with pytest.raises(JobError, match="has failed") as caught:
        simulate(job, sites=3, workers=2, to=tmp_path / "to")
    why = str(caught.value.why)
    last_words = {"site-1": "RuntimeError: bad data", "site-3": "SIGABRT"}
    assert any(f"{site}: its script ended 4 times" in why and words in why for site, words in last_words.items()), why
    assert caught.value.next_step
    assert caught.value.next_step.startswith("less ")


def test_what_is_wrong_is_told_before_anything_starts(seeded: Path, tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match="asks for the data 'table'") as caught:
        simulate(seeded, sites=2, to=tmp_path)
    assert "--data table=PATH" in str(caught.value.next_step)
    with pytest.raises(JobSpecError, match="No data lies at"):
        simulate(seeded, sites=2, data={"table": f"{tmp_path}/{{site}}"}, to=tmp_path)
    with pytest.raises(JobSpecError, match="is not understood"):
        simulate(seeded, sites=2, data={"table": "{where}"}, to=tmp_path)
    with pytest.raises(JobSpecError, match="0 sites"):
        simulate(seeded, sites=0, to=tmp_path)
    attached = tmp_path / "attached"
    attached.mkdir()
    (attached / "job.yml").write_text("name: attached\nattach: true\n")
    with pytest.raises(JobSpecError, match="attach themselves"):
        simulate(attached, sites=2, to=tmp_path)
    named = write(tmp_path / "named", "pass", sites=["a", "b"])
    with pytest.raises(JobSpecError, match="names 2 sites, not 3"):
        simulate(named, sites=3, to=tmp_path)
    broken = write(tmp_path / "broken", "def", workflow="fedavg")
    with pytest.raises(JobSpecError, match="is not Python"):
        simulate(broken, to=tmp_path / "to")


def test_a_simulated_site_aggregates_with_the_same_bits(tmp_path: Path) -> None:
    made = {}
    for place in ("server", "rotate"):
        workflow = {"type": "fedopt", "rounds": 2, "aggregate_at": place, "model": W}
        job = write(tmp_path / place, ADD, workflow=workflow)
        done = simulate(job, sites=3, workers=2, to=tmp_path / "to")
        made[place] = (done.folder / "model.safetensors").read_bytes()
        at = [entry.get("aggregated_at") for entry in done.view["history"]]
        assert at == ([None, None] if place == "server" else ["site-1", "site-2"])
    assert made["server"] == made["rotate"]


TORCH = """
import torch
from torch import nn
import fl_runtime.client as flare
torch.set_num_threads(1)
flare.init()
number = int(flare.get_site_name().split("-")[1])
torch.manual_seed(number)
net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
x = torch.randn(64, 20, generator=torch.Generator().manual_seed(number))
y = (x.sum(1) > 0).long()
while flare.is_running():
    model = flare.receive()
    if model.params:
        net.load_state_dict(model.params)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for rows in torch.randperm(64).split(16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    flare.send(flare.FLModel(params=net.state_dict(), metrics={"draw": torch.rand(()).item()}))
"""


@pytest.mark.slow
def test_torch_gives_the_same_bits_as_a_real_federation(running: Federation, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    job_folder = write(tmp_path / "torch", TORCH, framework="torch", workflow={"type": "fedopt", "rounds": 3})
    with running.session() as session:
        job = session.submit(job_folder)
        session.wait(job, 120)
        real = session.download(job, tmp_path / "real")
    done = simulate(job_folder, sites=3, workers=1, to=tmp_path / "to", job_id=job)
    assert (done.folder / "model.safetensors").read_bytes() == (real / "model.safetensors").read_bytes()
    assert (done.folder / "history.csv").read_text() == (real / "history.csv").read_text()
    assert load_file(done.folder / "model.safetensors")
