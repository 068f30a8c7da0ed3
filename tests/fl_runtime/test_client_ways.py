"""One Client API, whatever started the process: a script, torchrun's ranks, a notebook that attaches, Lightning."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation, until
from safetensors.numpy import load_file

from fl_runtime.localsock import Server
from fl_runtime.models.tensors import TensorFile

W = {"tensors": {"w": [5]}}


def finished(fed: Federation, folder: Path) -> tuple[dict[str, np.ndarray], str, dict[str, Any]]:
    """The job's model, the log of site-1, and what `show` says."""
    with fed.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        log = "".join(text for _, text in session.logs(job, "site-1", follow=True))
        target = session.download(job, fed.root / "results")
        view = until(lambda: (seen := session.show(job))["settled"] and seen)  # all logs and metrics are here
    model = TensorFile(target / "model.safetensors")
    return {name: model.flat(name).copy() for name in model.tensors}, log, view


# --- a process that somebody else has started

NOTEBOOK = """
import sys, time
import fl_runtime.client as flare
flare.init(wait=0 if sys.argv[1] == "second" else 30)
while flare.is_running():
    model = flare.receive()
    work = flare.current_session().work()
    print(model.current_round, work.id, work.attempt, flush=True)
    if sys.argv[1] == "stay" and model.current_round == 1:
        time.sleep(600)
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}))
print("over", flush=True)
"""


class Notebook:
    """A process of the site's owner, outside of the agent."""

    def __init__(self, fed: Federation, mode: str, **env: str) -> None:
        state = str(fed.sites["site-1"].state)
        self.output = fed.root / f"notebook-{mode}.txt"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NOTEBOOK, mode],
                env={**os.environ, "FEDSPAN_SITE": state, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def notebooks(running: Federation) -> Iterator[list[Notebook]]:
    made: list[Notebook] = []
    yield made
    for notebook in made:
        if notebook.process.poll() is None:
            notebook.kill()


def test_a_restarted_notebook_gets_the_same_attempt(running: Federation, notebooks: list[Notebook]) -> None:
    folder = running.job("notebook", "", sites=["site-1"], workflow={"type": "fedavg", "rounds": 3, "model": W})
    (folder / "job.yml").write_text((folder / "job.yml").read_text().replace("script: train.py", "attach: true"))
    with running.session() as session:
        job = session.submit(folder)
        notebooks.append(Notebook(running, "stay"))
        until(lambda: len(notebooks[0].lines()) == 2)
        notebooks.append(Notebook(running, "second"))  # while the first one lives: refused, with the reason
        notebooks[1].process.wait(60)
        assert "is attached as rank 0 of this job already" in notebooks[1].output.read_text()
        notebooks[0].kill()
        notebooks.append(Notebook(running, "go on"))
        session.wait(job, 120)
        model = load_file(session.download(job, running.root / "results") / "model.safetensors")
    notebooks[2].process.wait(60)
    first, again = notebooks[0].lines(), notebooks[2].lines()
    assert again[0] == first[1], "it should get the task that its predecessor had, as the same attempt"
    assert again[-1] == "over"
    assert model["w"].tolist() == [3.0] * 5


def test_nobody_attaches_where_no_job_waits(running: Federation) -> None:
    code = "import fl_runtime.client as flare, sys; flare.init(site=sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(running.sites["site-1"].state)], capture_output=True, text=True, check=False
    )
    assert "no job waits for a process here (attach: true)" in done.stderr
    socket = running.sites["site-1"].state / "local.sock"
    assert socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process of another user")
def test_another_user_does_not_get_in_whatever_the_sockets_mode_says() -> None:
    code = """
import os, socket, sys
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect(sys.argv[1])
print(sock.recv(1))
"""
    with tempfile.TemporaryDirectory() as scratch:  # where others come, unlike pytest's own folder
        Path(scratch).chmod(0o711)
        server = Server(Path(scratch) / "sock", dict, lambda connection, _: None, logging.getLogger("test"))
        try:
            argv = [sys.executable, "-c", code, f"{scratch}/sock"]
            assert "PermissionError" in subprocess.run(argv, capture_output=True, text=True, check=False).stderr
            (Path(scratch) / "sock").chmod(0o666)
            assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "b''\n"  # hung up
        finally:
            server.close()


# --- the end of a script


def test_a_script_that_ends_well_leaves_the_job_and_the_others_go_on(running: Federation) -> None:
    script = """
import fl_runtime.client as flare
flare.init()
while flare.is_running():
    model = flare.receive()
    if model.current_round == 1 and flare.get_site_name() == "site-1":
        break
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}))
"""
    workflow = {"type": "fedavg", "rounds": 3, "min_sites": 2, "grace": 0.2, "model": W}
    model, _, view = finished(running, running.job("leaves", script, workflow=workflow))
    assert model["w"].tolist() == [3.0] * 5
    assert [sorted(entry["sites"]) for entry in view["history"]] == [
        ["site-1", "site-2", "site-3"],
        ["site-2", "site-3"],
        ["site-2", "site-3"],
    ]
    assert (view["sites"]["site-1"]["state"], view["sites"]["site-1"]["why"]) == (
        "left",
        "its script ended before the job did",
    )


# --- the decorators

DECORATED = """
import fl_runtime.client as flare
from fl_runtime.apis.analytix import AnalyticsDataType
from fl_runtime.client.tracking import SummaryWriter

@flare.train
def train(model, step=1):
    print("train", model.current_round, flush=True)
    return flare.FLModel(params={"w": model.params["w"] + step})

@flare.evaluate
def evaluate(model, metric="mean"):
    print("evaluate", model.current_round, flush=True)
    return {metric: float(model.params["w"].mean())}

flare.init()
writer = SummaryWriter()
while flare.is_running():
    model = flare.receive()
    writer.add_scalar("seen", model.current_round, global_step=model.current_round)
    flare.log("also", 0.5, AnalyticsDataType.SCALAR)
    evaluate(model=model)
    train(model, step=2)
"""


def test_decorated_functions_train_evaluate_and_answer_evaluation_only(running: Federation) -> None:
    workflow = {"type": "fedavg", "rounds": 2, "model": W, "final_evaluation": True}
    model, log, view = finished(running, running.job("decorated", DECORATED, workflow=workflow))
    assert model["w"].tolist() == [4.0] * 5
    assert [entry["metrics"]["mean"] for entry in view["history"]] == [0.0, 2.0, 4.0]
    streamed = [(item["site"], item["value"]) for item in view["metrics"] if item["key"] == "seen"]
    assert sorted(streamed) == sorted((site, number) for site in running.sites for number in range(3))
    assert log.splitlines() == ["evaluate 0", "train 0", "evaluate 1", "train 1", "evaluate 2"]


# --- torch

TORCH = """
import torch
import fl_runtime.client as flare
flare.init()
seen = []
while flare.is_running():
    model = flare.receive()
    assert all(isinstance(value, torch.Tensor) for value in model.params.values())
    seen.append((model.params["w"].dtype, model.params["half"].dtype))
    kept = (model.optimizer_params or {}).get("m", torch.zeros(2))
    model.params["w"] += 1
    model.params["half"].mul_(2)
    flare.send(flare.FLModel(params=model.params, optimizer_params={"m": kept + 1}, meta={"kept": float(kept[0])}))
print(seen, flush=True)
"""


@pytest.mark.slow
def test_torch_tensors_come_back_as_torch_also_bfloat16_changed_in_place(running: Federation) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file

    folder = running.job("tensors", TORCH, workflow={"type": "fedavg", "rounds": 3, "model": "first.safetensors"})
    first = {"w": torch.zeros(5), "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    save_file(first, folder / "first.safetensors")
    _, log, view = finished(running, folder)
    assert log == f"{[(torch.float32, torch.bfloat16)] * 3}\n"
    got = load(running.root / "results" / view["id"] / "model.safetensors")
    assert got["half"].dtype == torch.bfloat16
    assert torch.equal(got["half"], torch.tensor([12.0, -16.0], dtype=torch.bfloat16))
    assert torch.equal(got["w"], torch.full((5,), 3.0))


RANKS = """
import os, sys
import torch
import torch.distributed as dist
import fl_runtime.client as flare

dist.init_process_group("gloo")
rank = dist.get_rank()
flare.init()
assert flare.system_info()["rank"] == rank
while flare.is_running():
    model = flare.receive()
    gradient = torch.full((5,), float(rank + 1))  # each rank's own rows
    dist.all_reduce(gradient)
    os.write(1, f"rank {rank} {flare.get_task_name()} {model.current_round} {flare.get_job_id()}\\n".encode())
    flare.log("loss", 0.5, global_step=model.current_round)
    if rank == 0 or model.current_round == 1:  # rank 0's counts; the others may, and need not
        params = {"w": model.params["w"] + gradient if rank == 0 else torch.full((5,), 1e9)}
        flare.send(flare.FLModel(params=params))
dist.destroy_process_group()
"""
LAUNCH = """
import os, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
sys.exit(subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                         os.path.join(here, "ranks.py")]).returncode)
"""


@pytest.mark.slow
def test_torchrun_gives_every_rank_every_task_and_takes_rank_0s_answer(running: Federation) -> None:
    pytest.importorskip("torch")
    folder = running.job("torchrun", LAUNCH, sites=["site-1"], workflow={"type": "fedavg", "rounds": 3, "model": W})
    (folder / "ranks.py").write_text(RANKS)
    model, log, view = finished(running, folder)
    assert model["w"].tolist() == [9.0] * 5  # 3 rounds of 1 + 2
    told = [line for line in log.splitlines() if line.startswith("rank ")]
    assert sorted(told) == sorted(f"rank {rank} train {number} {view['id']}" for rank in (0, 1) for number in range(3))


# --- Lightning

LIGHTNING = """
import logging, sys, warnings
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
import fl_runtime.client.lightning as flare


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def loss(self, batch):
        x, y = batch
        return ((x @ self.w - y) ** 2).mean()

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.5)

model = Line()
ranks = int(sys.argv[1])
trainer = Trainer(max_epochs=2, accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto",
                  logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False)
flare.patch(trainer)
number = int(flare.get_site_name()[-1])
rng = np.random.default_rng(number)
x = torch.tensor(rng.normal(size=(8, 2)))
rows = torch.utils.data.TensorDataset(x, x @ torch.tensor([1.0, -number]).double())
loader = torch.utils.data.DataLoader(rows, batch_size=8 // ranks)
while flare.is_running():
    trainer.validate(model, loader, verbose=False)
    trainer.fit(model, loader, loader)
print(flare.system_info()["site_name"], trainer.current_epoch, trainer.global_step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "numbers"), [(1, (1, 2)), (2, (1,))])
def test_a_patched_lightning_trainer_gives_the_float64_references_model(
    running: Federation, ranks: int, numbers: tuple[int, ...]
) -> None:
    """With two ranks (DDP on one site) the gradients are the mean of both halves' means: the same model."""
    pytest.importorskip("torch")
    pytest.importorskip("lightning", reason="Lightning is not installed (pip install lightning)")
    first = {"tensors": {"w": [2]}, "init": "normal", "seed": 3, "dtype": "float64"}
    workflow = {"type": "fedavg", "rounds": 3, "model": first, "final_evaluation": True}
    sites = [f"site-{number}" for number in numbers]
    folder = running.job(f"lightning-{ranks}", LIGHTNING, args=[ranks], sites=sites, workflow=workflow)
    got, log, view = finished(running, folder)

    rows, momentum = {}, {number: np.zeros(2) for number in numbers}
    for number in numbers:
        x = np.random.default_rng(number).normal(size=(8, 2))
        rows[number] = (x, x @ np.array([1.0, -number]))
    w, losses = np.random.default_rng(3).normal(0.0, 0.1, 2), []
    for _ in range(3):
        losses.append(np.mean([((x @ w - y) ** 2).mean() for x, y in rows.values()]))
        results = []
        for number, (x, y) in rows.items():
            own = w.copy()
            for _ in range(2):  # epochs of one step; the momentum goes on from round to round
                momentum[number] = 0.5 * momentum[number] + 2 * x.T @ (x @ own - y) / 8
                own -= 0.1 * momentum[number]
            results.append(own)
        w = np.mean(results, axis=0)
    losses.append(np.mean([((x @ w - y) ** 2).mean() for x, y in rows.values()]))
    assert got["w"] == pytest.approx(w, rel=1e-12)
    assert [entry["metrics"]["loss"] for entry in view["history"]] == pytest.approx(losses, rel=1e-6)
    assert [entry["sites"]["site-1"]["weight"] for entry in view["history"]] == [2, 2, 2, 1]
    assert log.count("site-1 6 6") == ranks


def test_lightnings_module_is_told_apart_from_what_is_no_trainer() -> None:
    code = "import fl_runtime.client.lightning as flare; flare.patch(object())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "patch() takes a Lightning Trainer, not object" in done.stderr
