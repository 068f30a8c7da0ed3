"""Runtimes are upgraded and rolled back, and sites come and go, while a job runs. One federation, tests in order."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of

import deployer
from deployer.expiry_units import TIMER_PATH
from deployer.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SLOW_ROUNDS = """\
import time
import fl_runtime.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    time.sleep(2)
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}, metrics={"accuracy": 0.5}))
"""

PACKAGES = ("deployer", "stacks", "startup_kits", "fl_runtime")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later fedspan: this one with another version, to be put before it on the path."""
    return release(tmp_path_factory.mktemp("later"), "0.2.0")


def release(folder: Path, version: str, **changes: int) -> Path:
    """A copy of fedspan with another version (and other constants of `fl_runtime.names`)."""
    source = Path(deployer.__file__).parent.parent
    for package in PACKAGES:
        shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    start = folder / "fl_runtime" / "__init__.py"
    start.write_text(start.read_text().replace('metadata.version("fedspan")', f'"{version}"'))
    client = folder / "deployer" / "sandbox" / "client.py"  # the sandbox itself stays this one's
    client.write_text(client.read_text().replace("self._state.version != version()", "False"))
    names = folder / "fl_runtime" / "names.py"
    for name, value in changes.items():
        text = names.read_text()
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} =")]
        names.write_text(text.replace(line, f"{name} = {value}"))
    return folder


def lines(world: World) -> dict[str, dict[str, Any]]:
    """What `status` says, by participant."""
    return {line["name"]: line for line in world.json("status").ok().last["participants"]}


def timer(world: World, name: str) -> Path:
    """The unit that ends a site's machine."""
    machine = next(one for one in world.sandbox.machines() if one["name"] == name)
    return Path(machine["root"]) / TIMER_PATH.removeprefix("/")


def submit(world: World, folder: Path, name: str, rounds: int) -> str:
    """A job of so many rounds of two seconds each; returns once its first round is over."""
    path = folder / name
    path.mkdir()
    (path / "train.py").write_text(SLOW_ROUNDS)
    (path / "job.yml").write_text(
        f"name: {name}\nscript: train.py\nsites: [site-1]\nworkflow:\n  type: fedavg\n  rounds: {rounds}\n"
        "  model: {tensors: {w: [4]}, init: zeros}\n"
    )
    job = str(world.json("job", "submit", str(path)).ok().last["job"])
    wait(world, job, lambda found: found["round"] >= 1)
    return job


def wait(world: World, job: str, reached: Any, seconds: float = 180) -> dict[str, Any]:
    """Until the job is as wanted."""
    end = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = next(one for one in world.json("job", "list").ok().last if one["id"] == job)
        if reached(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.5)


def test_a_site_joins_and_leaves_while_a_job_runs_and_nothing_else_changes(up: World, tmp_path: Path) -> None:
    job = submit(up, tmp_path, "long", 2000)
    machines = {machine["name"]: machine["id"] for machine in up.sandbox.machines()}
    spec = copy_of(SPEC)
    spec["sites"]["site-2"] = {"target": "aws", "region": "eu-west-1", "size": "m7i.large"}
    up.write(spec)
    joined = up.json("up", "site-2", "--yes").ok()
    plan = next(event for event in joined.events if event.get("event") == "plan")
    steps = {part["name"]: [(one["action"], one["type"]) for one in part["steps"]] for part in plan["participants"]}
    assert set(steps) == {"server", "site-2"}
    assert {kind for _, kind in steps["server"]} <= {"azure-native:network:SecurityRule"}
    assert joined.last["changed"]["server"] == 1  # that one rule
    assert joined.last["pushed"]["server"] == []
    assert "site-1" not in joined.last["changed"]
    assert joined.last["registered"] == ["site-1", "site-2"]
    assert lines(up)["site-1"]["jobs"] == [job]

    up.run("down", "site-2", "--yes").ok()
    up.write(SPEC)
    left = up.json("up", "server", "--yes").ok()
    assert left.last["changed"] == {"server": 1}  # the rule goes
    after = {machine["name"]: machine["id"] for machine in up.sandbox.machines()}
    assert after == machines
    found = wait(up, job, lambda found: found["state"] != "QUEUED")
    assert found["state"] == "RUNNING"
    up.run("job", "abort", job).ok()


def test_an_upgrade_refuses_to_interrupt_a_job_unless_told(up: World, later: Path, tmp_path: Path) -> None:
    job = submit(up, tmp_path, "interrupted", 2000)
    path = {"PYTHONPATH": str(later)}
    refused = up.run("upgrade", "--yes", environment=path)
    assert refused.code == 13
    assert job in refused.err
    assert "--drain" in refused.err
    up.run("extend", "site-1", "8h").ok()
    ledger = Ledger(up.fed / ".fedspan" / "ledger.db")
    ledger.record("site-1", "failed", detail="as an upgrade or an up that failed at its end leaves it")
    done = up.run("upgrade", "--resume", "--yes", "--json", environment=path).ok().last["runtimes"]
    assert timer(up, "site-1").is_file(), "the machine's end is not lost by it"
    assert {name: (one["changed"], one["to"].split()[1]) for name, one in done.items()} == {
        "server": (True, "0.2.0"),
        "site-1": (True, "0.2.0"),
    }
    found = lines(up)
    assert (found["server"]["version"], found["site-1"]["version"]) == ("0.2.0", "0.2.0")
    before = wait(up, job, lambda found: True)["round"]
    after = wait(up, job, lambda found: found["round"] >= before + 2)  # it goes on, from where it was
    assert (after["state"], before > 1) == ("RUNNING", True)
    up.run("job", "abort", job).ok()


def test_a_second_upgrade_has_nothing_to_do(up: World, later: Path) -> None:
    again = up.run("upgrade", "--json", environment={"PYTHONPATH": str(later)}).ok().last["runtimes"]
    assert [one["changed"] for one in again.values()] == [False, False]


def test_one_site_is_rolled_back_and_drained_first(up: World, tmp_path: Path) -> None:
    job = submit(up, tmp_path, "drained", 30)
    told = up.run("rollback", "site-1", "--drain", "--yes").ok().out
    assert f"waiting for the end of {job}" in told
    assert "site-1: fedspan 0.2.0" in told
    found = lines(up)
    assert (found["site-1"]["version"], found["server"]["version"]) == ("0.1.0", "0.2.0")
    assert found["site-1"]["runtime"] == "registered"
    assert next(one for one in up.json("job", "list").ok().last if one["id"] == job)["state"] == "FINISHED"
    events = [event["detail"] for event in up.json("events", "site-1").ok().events if event["command"] == "rollback"]
    assert any("fedspan 0.2.0" in (detail or "") for detail in events)


def test_versions_that_have_no_protocol_in_common_are_refused_before_anything_is_touched(
    up: World, tmp_path: Path
) -> None:
    far = release(tmp_path, "3.0.0", PROTOCOL_MAJOR=9)
    refused = up.run("upgrade", "server", "--yes", environment={"PYTHONPATH": str(far)})
    assert refused.code == 13
    assert "site-1: would no longer speak with the server" in refused.err
    assert "protocols 8 to 9" in refused.err
    assert lines(up)["server"]["version"] == "0.2.0"
