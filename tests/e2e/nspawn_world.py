"""Worlds whose machines are systems of their own, and how to ask those."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_world import World, make_world
from waiting import until

from deployer.sandbox.machines.nspawn import image, tools

PATIENCE_S = 120.0
TRAIN = """\
import fl_runtime.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}, metrics={"accuracy": 0.5}))
"""


def make_nspawn_world(cache: Path) -> World:
    """A world with a sandbox of the driver nspawn; the caller closes it. Skips where that driver can't run."""
    if why := tools.lacking():
        pytest.skip(why)
    roots = image.ensure(print).parent
    shared = cache / "fedspan" / "machine-root"
    shared.parent.mkdir(parents=True, exist_ok=True)
    if not shared.exists():
        shared.symlink_to(roots)
    world = make_world(cache)
    try:
        world.fed.mkdir()
        assert "driver nspawn" in world.run("sandbox", "start", "--driver", "nspawn").ok().out
    except BaseException:
        world.close()
        raise
    return world


def on(world: World, name: str, *words: str) -> str:
    """What a command says on a participant's machine."""
    return world.run("ssh", name, "--", *words).ok().out.strip()


def reboot(world: World, name: str) -> None:
    """The machine reboots itself; returns once it answers again."""
    boot = on(world, name, "cat", "/proc/sys/kernel/random/boot_id")
    world.run("ssh", name, "--", "sudo", "-n", "systemctl", "reboot")

    def rebooted() -> bool:
        told = world.run("ssh", name, "--", "cat", "/proc/sys/kernel/random/boot_id")
        return told.code == 0 and told.out.strip() not in ("", boot)

    until(rebooted, PATIENCE_S, "the reboot")


def run_job(world: World, folder: Path) -> None:
    """Submits a job of two rounds from an empty folder, and waits for its end."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "job.yml").write_text(
        "name: quick\nscript: train.py\nworkflow:\n  type: fedavg\n  rounds: 2\n"
        "  model: {tensors: {w: [4]}, init: zeros}\n"
    )
    world.run("job", "submit", str(folder), "--wait").ok()


def states(world: World) -> list[tuple[str, str]]:
    """Names and states of all jobs."""
    return [(entry["name"], entry["state"]) for entry in world.json("job", "list").ok().last]
