"""A job's own code on the server works as it should, and gets at nothing that is not its job's."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from federation import Federation, until
from safetensors.numpy import load_file
from scripts import ADD, SLOW

from fl_runtime.agent import landlock
from fl_runtime.errors import JobError

ISOLATES = os.geteuid() == 0 or landlock.abi() >= 2
MODEL = {"tensors": {"w": [50_000]}}  # larger than what lies in messages: it travels as files
EXPECTED = 3 * 14 / 6  # three rounds of the mean of 1, 2, 3 weighing 1, 2, 3

SPY = """
import json, os, pathlib, socket, time
from fl_runtime import localsock
from fl_runtime.workflow.fedavg import FedAvg

def tried(action):
    try:
        return repr(action())
    except OSError as error:
        return type(error).__name__

def attached(path):
    connection = localsock.connect(pathlib.Path(path), 5)
    connection.send({"op": "attach", "job": other, "epoch": 1})
    return "Error" if "error" in connection.receive()[0] else "attached"

class Spy(FedAvg):
    def run(self):
        global other
        config = self.spec["config"]
        kit, state, hub, other = (config[key] for key in ("kit", "state", "hub", "other"))
        print("SPY", json.dumps({
            "reads the key": tried(lambda: open(kit + "/startup/participant.key").read()),
            "lists the kit": tried(lambda: os.listdir(kit + "/startup")),
            "writes the policy": tried(lambda: open(kit + "/local/policy.yml", "a")),
            "reads the state": tried(lambda: open(state + "/hub.db", "rb").read()),
            "lists the blobs": tried(lambda: os.listdir(state + "/blobs")),
            "reads a log": tried(lambda: open(state + f"/logs/{other}/site-1.log", "rb").read()),
            "reads another job": tried(lambda: os.listdir(state + f"/jobs/{other}/bundle")),
            "reads the server's memory": tried(lambda: open(f"/proc/{hub}/mem", "rb")),
            "reads the server's environment": tried(lambda: open(f"/proc/{hub}/environ", "rb").read()),
            "attaches as another job": tried(lambda: attached(state + "/local.sock")),
            "attaches as another job there": tried(lambda: attached(state + f"/jobs/{other}/agent.sock")),
            "writes outside": tried(lambda: open(state + "/x", "w")),
        }), flush=True)
        super().run()
"""


def job(fed: Federation, name: str, code: str, script: str = ADD, **document: Any) -> Path:
    settings = {"type": "controller", "path": "mine.Spy", "rounds": 3, "model": MODEL, **document.pop("workflow", {})}
    folder = fed.job(name, script, workflow=settings, **document)
    (folder / "mine.py").write_text(code)
    return folder


def hub_pid(fed: Federation) -> int:
    return int(fed.server.status()["pid"])


@pytest.mark.skipif(not ISOLATES, reason="neither root nor Landlock")
def test_a_jobs_own_workflow_on_the_server_gets_at_nothing(running: Federation, tmp_path: Path) -> None:
    with running.session() as session:
        waiting = session.submit(job(running, "other", "from fl_runtime.workflow.fedavg import FedAvg as Spy\n", SLOW,
                                     config={"marks": str(running.marks), "seconds": 60}))  # fmt: skip
        until(lambda: session.show(waiting)["state"] == "RUNNING")
        config = {"kit": str(running.server.kit), "state": str(running.server.state), "hub": hub_pid(running)}
        view = session.wait(session.submit(job(running, "spy", SPY, config={**config, "other": waiting})), 120)
        log = "".join(text for _, text in session.logs(view["id"], "server"))
        results = session.download(view["id"], tmp_path)
        session.abort(waiting)
    outcome = json.loads(log.partition("SPY ")[2].splitlines()[0])
    got = {what: result[:80] for what, result in outcome.items() if "Error" not in result and result != "b''"}
    assert got == {}
    assert load_file(results / "model.safetensors")["w"] == pytest.approx(np.full(50_000, EXPECTED))
    place = running.server.state / "jobs" / view["id"]
    until(lambda: not any(any((place / name).iterdir()) for name in ("shown", "spool")))


THIEF = """
from fl_runtime.workflow.fedavg import FedAvg
from fl_runtime.workflow.records import Model
class Spy(FedAvg):
    def run(self):
        self.broadcast_and_wait("train", Model(self.spec["config"]["blob"], b""), tensors=False)
"""


def test_naming_another_jobs_model_grants_nothing(running: Federation) -> None:
    with running.session() as session:
        done = session.wait(
            session.submit(job(running, "rich", "from fl_runtime.workflow.fedavg import FedAvg as Spy")), 120
        )
        with pytest.raises(JobError, match="named a model that is not of this job"):
            session.wait(session.submit(job(running, "thief", THIEF, config={"blob": done["model"]["blob"]})), 120)


HOARDER = """
from fl_runtime.workflow.fedavg import FedAvg
class Spy(FedAvg):
    def run(self):
        for _ in range(self.spec["config"]["files"]):
            self.new_file(self.spec["config"]["size"])
"""


@pytest.mark.parametrize(
    ("files", "size", "quota", "why"),
    [
        (100, 1000, None, "holds too many files: it has asked for 64 files"),
        (10, 20_000_000, "100MB", "The disk quota is exceeded"),
    ],
)
def test_what_it_asks_for_and_does_not_give_back_has_an_end(
    running: Federation, files: int, size: int, quota: str | None, why: str
) -> None:
    resources = running.server.kit / "local/resources.yml"
    former = resources.read_text()
    resources.write_text(yaml.safe_dump({**yaml.safe_load(former), **({"disk_quota": quota} if quota else {})}))
    try:
        with running.session() as session:
            made = session.submit(job(running, "hoarder", HOARDER, config={"files": files, "size": size}))
            with pytest.raises(JobError, match=why):
                session.wait(made, 60)
        place = running.server.state / "jobs" / made
        until(lambda: not any((place / "spool").iterdir()), what="nothing of it is left")
    finally:
        resources.write_text(former)


def test_the_servers_list_of_code_holds_for_controllers_too(running: Federation) -> None:
    policy = running.server.kit / "local/policy.yml"
    policy.write_text(yaml.safe_dump({"scripts": ["known.Controller"]}))
    try:
        with running.session() as session, pytest.raises(JobError, match=r"mine\.Spy is not on its list"):
            session.wait(session.submit(job(running, "unlisted", THIEF)), 120)
        with running.session() as session:  # what runs no code of its own needs no leave
            folder = running.job("plain", ADD, workflow={"type": "fedavg", "rounds": 1, "model": MODEL})
            assert session.wait(session.submit(folder), 120)["state"] == "FINISHED"
    finally:
        policy.unlink()


FAMILY = """
import os, signal, time
from fl_runtime.workflow.fedavg import FedAvg
class Spy(FedAvg):
    def run(self):
        if not self.finished:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                time.sleep(300)
            print("family", flush=True)
        super().run()
"""


def below(folder: Path) -> list[int]:
    """Processes whose working folder lies in a job's."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd").startswith(str(folder)):
                    found.append(int(entry))
    return found


def test_it_goes_on_after_its_server_was_killed_and_ends_with_all_that_it_started(fresh: Federation) -> None:
    config = {"marks": str(fresh.marks), "seconds": 0.4}
    with fresh.session() as session:
        made = session.submit(job(fresh, "family", FAMILY, SLOW, config=config, workflow={"rounds": 4}))
        until(lambda: session.show(made)["round"] >= 1)
        place = fresh.server.state / "jobs" / made
        assert len(below(place)) >= 2
        fresh.server.kill()
        fresh.server.start()
        view = session.wait(made, 120)
    assert [entry["round"] for entry in view["history"]] == [0, 1, 2, 3]
    until(lambda: not below(place))
