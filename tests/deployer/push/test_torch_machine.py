"""A job that trains in torch on a machine whose image has it, in an interpreter of the image's own."""

from __future__ import annotations

import importlib.util
import json
import venv
from pathlib import Path

import pytest
from waiting import until

from deployer.bootstrap import install_participant
from deployer.ssh import Machine
from fl_runtime.admin import Session
from startup_kits.kit import Kit
from startup_kits.torch_source import TorchSource
from tests.deployer.push.two_machines import World, registered, site, world

__all__ = ["site", "world"]  # fixtures

TRAIN = """
import json, sys
import torch
import fl_runtime.client as flare
print("who", json.dumps([sys.prefix, torch.__version__]), flush=True)
flare.init()
while flare.is_running():
    model = flare.receive()
    weights = model.params["w"]
    assert isinstance(weights, torch.Tensor), type(weights)
    flare.send(flare.FLModel(params={"w": weights + 1}))
"""

JOB = """
name: image-torch
script: train.py
sites: [site-1]
workflow: {type: fedavg, rounds: 2, model: {tensors: {w: [3]}, init: zeros}}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed here")
def test_a_job_trains_in_the_torch_of_the_machines_image(world: World, site: Machine, tmp_path: Path) -> None:
    image = Path(site.facts().root, "opt/pytorch")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(image)
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent.parent
    (next(image.glob("lib/python3*/site-packages")) / "of-the-image.pth").write_text(f"{installed}\n")

    def install(torch: TorchSource | None) -> list[str]:
        kit = world.provisioned.kits["site-1"]
        return install_participant(site, kit, world.cache, world.endpoint, {}, torch=torch).changed

    assert install(TorchSource()) == ["started"]  # with another interpreter for scripts
    assert install(TorchSource()) == []
    with world.login("server") as server:
        until(lambda: registered(server, "site-1"))
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.yml").write_text(JOB)
    (folder / "train.py").write_text(TRAIN)
    admin = world.provisioned.kits["ana@hospital-a.example"]
    Kit.open(admin).set_endpoint(world.endpoint)
    with Session(admin) as session:
        job = session.submit(folder)
        assert session.wait(job, 120)["state"] == "FINISHED"
        log = "".join(text for _, text in session.logs(job, "site-1"))
    prefix, version = json.loads(next(line for line in log.splitlines() if line.startswith("who "))[4:])
    assert prefix == str(image)
    assert version
