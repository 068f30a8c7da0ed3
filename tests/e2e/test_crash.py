"""A crash leaves nothing behind: `up` is killed at several points, then `up` again, then `down`.

The emulated clouds answer late (a fault), after they have made the thing: what is killed meanwhile is a real orphan,
which the engine alone would make a second time and forget.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_world import LEAD, World

# the server is its owner's, so that these tests are about stacks and not about registration
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {LEAD: {"role": "lead"}},
}
AZURE = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def tidy(world: World) -> Iterator[None]:
    """What a failed test leaves must not be the next one's burden."""
    yield
    kill(*(engine.pid for engine in engines(world)))
    world.stop_all()
    world.faults()
    if world.inventory():
        world.run("down", "--yes")


def engines(world: World) -> list[psutil.Process]:
    """The engine commands that work for this world."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            line, folder = process.info["cmdline"] or [], process.cwd()
        except psutil.Error:
            continue
        if Path(folder).is_relative_to(world.fed / ".fedspan") and any(word == "up" for word in line):
            found.append(process)
    return found


def wait_for(world: World, process: subprocess.Popen[str], kind: str, limit: float = 180) -> None:
    """Until the clouds hold something of that kind (its create is still under way: the answer is delayed)."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if any(kind in entry.lower() for entry in world.inventory()):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {kind} within {limit} s: {world.inventory()}")


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def check_one_of_each(world: World) -> None:
    twice = [name for name, count in Counter(world.inventory()).items() if count > 1]
    assert twice == []
    assert len(world.sandbox.machines()) == 1


def check_recovers(world: World) -> None:
    """The next `up` ends well with exactly one of each; one more changes nothing; `down` leaves nothing."""
    world.faults()
    world.run("up", "--yes").ok()
    assert world.sandbox.settle()
    check_one_of_each(world)
    assert world.json("plan", "--refresh").ok().last["changes"] == 0
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []


CASES = [
    pytest.param("aws", "ec2:instance", "both", id="aws machine, both killed"),
    pytest.param("aws", "ec2:elastic-ip", "engine", id="aws address, engine killed"),
    pytest.param("azure", "microsoft.compute/virtualmachines", "both", id="azure machine"),
    pytest.param("azure", "microsoft.network/publicipaddresses", "fedspan", id="azure address"),
]


@pytest.mark.parametrize(("cloud", "kind", "whom"), CASES)
def test_killed_in_a_create_then_up_then_down_leaves_nothing(world: World, cloud: str, kind: str, whom: str) -> None:
    spec = {**SPEC, "sites": {"site-1": SPEC["sites"]["site-1"] if cloud == "aws" else AZURE}}
    world.write(spec)
    world.faults(delays={kind: 8.0})
    process = world.start("up", "--yes")
    wait_for(world, process, kind.lower())
    running = engines(world)
    assert running, "an engine is at work"
    if whom in ("engine", "both"):
        kill(*(engine.pid for engine in running))
    if whom in ("fedspan", "both"):
        kill(process.pid)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0, (out, err)
    check_recovers(world)


def test_killed_in_a_delete_then_down_leaves_nothing(world: World) -> None:
    world.write(SPEC)
    world.faults()
    world.run("up", "--yes").ok()
    world.faults(delays={"ec2:network-interface": 6.0})
    process = world.start("down", "--yes")
    end = time.monotonic() + 180
    while any("network-interface" in entry for entry in world.inventory()):
        assert time.monotonic() < end
        time.sleep(0.05)
    destroying = [
        entry
        for entry in psutil.process_iter(["pid", "cmdline"])
        if "destroy" in (entry.info["cmdline"] or []) and _works_in(entry, world)
    ]
    kill(*(entry.pid for entry in destroying), process.pid)
    process.communicate(timeout=60)
    world.faults()
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []


def _works_in(process: psutil.Process, world: World) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(world.fed / ".fedspan")
    except psutil.Error:
        return False


def test_a_crash_then_down_without_another_up_leaves_nothing(world: World) -> None:
    world.write(SPEC)
    world.faults(delays={"ec2:instance": 8.0})
    process = world.start("up", "--yes")
    wait_for(world, process, "ec2:instance")
    kill(*(engine.pid for engine in engines(world)), process.pid)
    process.communicate(timeout=60)
    world.faults()
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []
