"""`up` is killed in each of its phases in turn, from the first address to the start of the runtime, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest
from e2e_world import LEAD, World

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {LEAD: {"role": "lead"}},
}
PHASES = ("allocating", "making", "booting", "pushing", "installing", "verifying", "starting")


def kill_in(world: World, phase: str, *words: str, after: str | None = None) -> list[str]:
    """`up`, killed as soon as it tells that site-1 has come to `phase` (`after` another one); what it told."""
    process: subprocess.Popen[str] = world.start("up", *words, "--yes", "--json")
    assert process.stdout is not None
    told: list[str] = []
    for line in process.stdout:
        event = json.loads(line)
        if event.get("event") == "phase" and event["participant"] == "site-1":
            told.append(event["phase"])
            if event["phase"] == phase and (after is None or after in told):
                os.kill(process.pid, signal.SIGKILL)
                break
    process.communicate(timeout=120)
    return told


def test_killed_in_every_phase_up_goes_on_and_down_leaves_nothing(world: World) -> None:
    world.write(SPEC)
    world.run("provision").ok()
    reached = {phase: kill_in(world, phase) for phase in PHASES}
    assert [told[-1] for told in reached.values()] == list(PHASES), "each was killed where it should be"
    told = world.json("up", "--yes").ok()
    assert "site-1" in told.last["pushed"]
    assert world.sandbox.settle()
    assert len(world.sandbox.machines()) == 1
    assert world.json("plan", "--refresh").ok().last["changes"] == 0
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []


@pytest.mark.timeout(600)
def test_killed_in_a_move_to_another_region_up_goes_on_and_down_leaves_nothing(world: World) -> None:
    site = {**SPEC["sites"]["site-1"], "fallback_regions": ["eu-west-1"]}
    world.write({**SPEC, "sites": {"site-1": site}})
    world.faults(no_capacity=["eu-central-1"])
    move = ("--allow-fallback",)
    leaving = kill_in(world, "leaving", *move)
    allocating = kill_in(world, "allocating", *move, after="leaving")
    assert (leaving[-1], allocating[-1]) == ("leaving", "allocating"), "each was killed where it should be"
    making = kill_in(world, "making", *move)
    assert making[-1] == "making"
    world.run("up", *move, "--yes").ok()
    assert world.sandbox.settle()
    assert [machine["zone"][:-1] for machine in world.sandbox.machines()] == ["eu-west-1"]
    assert not [item for item in world.sandbox.inventory() if item.region == "eu-central-1"]
    world.faults()
    assert world.json("plan", "--refresh").ok().last["changes"] == 0
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []
