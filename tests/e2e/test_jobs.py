"""Jobs by the real command; what a machine does that has none; what `down` does about them: refuse, abort, fetch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of
from waiting import until

from deployer.idle_units import MARK_PATH, SERVICE_PATH, TIMER_PATH, service_text, timer_text

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


def site(world: World, *words: str) -> dict[str, Any]:
    """What `status` says of site-1."""
    return next(one for one in world.json("status", *words).ok().last["participants"] if one["name"] == "site-1")


def machine(world: World) -> dict[str, Any]:
    """Site-1's machine as the sandbox has it."""
    return next(one for one in world.sandbox.machines() if one["name"] == "site-1")


@contextmanager
def in_haste(world: World) -> Iterator[None]:
    """Three seconds without a job are as five minutes on site-1's machine as it is now, until it has turned off."""
    root = Path(machine(world)["root"])
    timer, service = root / TIMER_PATH[1:], root / SERVICE_PATH[1:]
    assert (timer.read_text(), service.read_text()) == (timer_text(), service_text(300))
    timer.write_text(timer_text().replace("Sec=60s", "Sec=1s"))
    service.write_text(service_text(3))
    yield
    if root.is_dir():  # before it boots again
        timer.write_text(timer_text())
        service.write_text(service_text(300))


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


def test_an_idle_stop_is_planned_and_brought_to_the_machine_that_stands(up: World) -> None:
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["idle_stop"] = "5m"
    up.write(spec)
    plan = up.json("plan").ok().last
    assert plan["changes"] == 0
    (told,) = [part["idle"] for part in plan["participants"] if part["idle"]]
    assert told.startswith("turns itself off when no job ran for 5 min: AWS stops it")
    assert up.json("up", "--yes").ok().last["pushed"]["site-1"] == ["idle_stop"]
    assert site(up)["idle_stop"] == 300
    assert up.json("up", "--yes").ok().last["nothing_changed"] is True


def test_an_idle_site_turns_itself_off_after_its_job_and_up_brings_it_back_where_it_was(
    up: World, tmp_path: Path
) -> None:
    before = site(up)
    begun = time.time()
    up.run("job", "submit", str(job(tmp_path, "last", QUICK)), "--wait").ok()
    assert (Path(machine(up)["root"]) / MARK_PATH[1:]).stat().st_mtime > begun
    with in_haste(up):
        until(lambda: machine(up)["state"] == "stopped", 120, "its end")
    lost = until(lambda: (found := site(up))["runtime"].startswith("lost") and found, what="its loss")
    assert (lost["phase"], lost["machine"]) == ("registered", "")
    assert "it may have: fedspan status --refresh asks its cloud" in up.run("status").ok().out
    off = site(up, "--refresh")
    assert (off["phase"], off["machine"], off["drift"]) == ("stopped", "stopped", [])
    event = [event for event in up.json("events", "site-1").ok().events if event["what"] == "stopped"][-1]
    assert event["detail"] == "it turned itself off: no job ran for 5 min"
    assert site(up)["seconds_on"] == site(up)["seconds_on"]  # its bill has ended
    assert "site-1: off, as no job ran; nothing but fedspan up or start turns it on" in up.run("status").ok().out
    assert up.json("up", "--yes").ok().last["registered"] == ["site-1"]
    back = site(up, "--refresh")
    assert (back["machine"], back["address"], back["runtime"]) == ("running", before["address"], "registered")
    assert back["seconds_on"] > off["seconds_on"]
    up.run("job", "submit", str(job(tmp_path, "again", QUICK)), "--wait").ok()


def test_start_brings_it_back_too_though_nobody_has_seen_that_it_was_off(up: World) -> None:
    with in_haste(up):
        until(lambda: machine(up)["state"] == "stopped", 120, "its end")
    assert up.json("start", "site-1").ok().last["states"] == {"site-1": "started"}
    assert site(up)["runtime"] == "registered"
    phases = [event["what"] for event in up.json("events", "site-1").ok().events if event["what"] != "registered"]
    assert phases[-3:] == ["stopped", "machine", "started"]  # its bill goes on from when it was turned on


def test_one_with_an_end_is_terminated_and_up_makes_another_with_its_address_and_its_timer(up: World) -> None:
    address = site(up)["address"]
    up.run("extend", "site-1", "8h").ok()
    with in_haste(up):
        until(lambda: not any(one["name"] == "site-1" for one in up.sandbox.machines()), 120, "its end")
    off = site(up, "--refresh")
    assert (off["phase"], off["machine"]) == ("stopped", "gone")
    assert up.json("up", "--yes").ok().last["registered"] == ["site-1"]
    back = site(up, "--refresh")
    assert (back["machine"], back["address"], back["drift"]) == ("running", address, [])
    assert (Path(machine(up)["root"]) / TIMER_PATH[1:]).is_file()


def test_without_an_idle_stop_in_the_spec_the_timer_goes(up: World) -> None:
    up.write(SPEC)
    assert up.json("up", "--yes").ok().last["pushed"]["site-1"] == ["idle_stop"]
    assert not (Path(machine(up)["root"]) / TIMER_PATH[1:]).exists()
    assert site(up)["idle_stop"] is None


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
    assert sorted(path.name.split("-")[0] for path in results) == ["again", "last", "quick"]
    assert (results[0] / "model.safetensors").is_file()
    assert up.inventory() == []
