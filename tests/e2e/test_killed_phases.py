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


def kill_in(world: World, phase: str) -> list[str]:
    """`up`, killed as soon as it tells that site-1 has come to `phase`; the phases that it told of."""
    process: subprocess.Popen[str] = world.start("up", "--yes", "--json")
    assert process.stdout is not None
    told: list[str] = []
    for line in process.stdout:
        event = json.loads(line)
        if event.get("event") == "phase" and event["participant"] == "site-1":
            told.append(event["phase"])
            if event["phase"] == phase:
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
    assert world.json("plan").ok().last["changes"] == 0
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []
