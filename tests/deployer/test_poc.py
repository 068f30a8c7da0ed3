"""`fedspan poc`, the console and the job and site commands on it: real processes, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import PATIENCE_S, until

COMMAND = [sys.executable, "-m", "deployer.cli"]
TRAIN = """
import fl_runtime.client as flare
flare.init()
while flare.is_running():
    model = flare.receive()
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}, metrics={"m": 0.5}))
"""
JOB = "name: plus\nscript: train.py\nworkflow: {type: fedavg, rounds: 2, model: {tensors: {w: [3]}}}\n"


class Poc:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self.env = {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "xdg"), "TERM": "dumb"}
        self.job = folder / "job"
        self.job.mkdir()
        (self.job / "train.py").write_text(TRAIN)
        (self.job / "job.yml").write_text(JOB)

    def run(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.env,
            input=text if text is not None else "",
            text=True,
            capture_output=True,
            timeout=120,
        )

    def ok(self, *words: str, text: str | None = None) -> str:
        done = self.run(*words, text=text)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in line and "fl_runtime" in line:
                found.append(line)
        return found


@pytest.fixture(scope="module")
def poc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poc]:
    made = Poc(tmp_path_factory.mktemp("poc"))
    try:
        made.told = made.ok("poc", "up", "-n", "2")  # type: ignore[attr-defined]
        yield made
    finally:
        made.run("poc", "down")


def test_up_registers_all_and_says_what_comes_next(poc: Poc) -> None:
    told = poc.told  # type: ignore[attr-defined]
    assert "2 sites run; all are registered" in told
    for line in ("fedspan -f poc job submit JOB_FOLDER --wait", "fedspan -f poc admin", "fedspan poc down"):
        assert line in told
    rows = json.loads(poc.ok("poc", "status", "--json"))["participants"]
    assert {name: row["registered"] for name, row in rows.items()} == {"server": None, "site-1": True, "site-2": True}
    assert "all are registered" in poc.ok("poc", "up", "-n", "2")  # again: nothing to do
    assert json.loads(poc.ok("poc", "status", "--json"))["participants"] == rows
    refused = poc.run("poc", "up", "-n", "3")
    assert (refused.returncode, "fedspan poc down" in refused.stderr) == (13, True)


def test_the_job_commands_from_submission_to_deletion(poc: Poc) -> None:
    told = poc.ok("-f", "poc", "job", "submit", "job", "--wait")
    assert "round 1" in told
    job = json.loads(poc.ok("-f", "poc", "job", "list", "--json"))[0]["id"]
    clone = json.loads(poc.ok("-f", "poc", "job", "clone", job, "--wait", "--json").splitlines()[-1])["id"]
    assert clone != job
    assert (poc.folder / "results" / job).exists() is False
    shown = poc.ok("-f", "poc", "job", "show", job)
    for words in ("by admin@poc.example, ran ", "site-1: ended", "round 1 m 0.5", f"fedspan job download {job}"):
        assert words in shown
    assert "metrics.json, model.safetensors" in poc.ok("-f", "poc", "job", "download", job)
    assert (poc.folder / "results" / job / "model.safetensors").is_file()
    asked = poc.run("-f", "poc", "job", "delete", job)
    assert (asked.returncode, "--yes" in asked.stderr) == (13, True)
    assert "deleted" in poc.ok("-f", "poc", "job", "delete", job, "--yes")
    gone = poc.run("-f", "poc", "job", "show", job)
    assert (gone.returncode, "fedspan job list" in gone.stderr) == (2, True)
    assert "site-1" in poc.ok("-f", "poc", "site", "resources")


def test_a_site_that_was_restarted_comes_back_and_one_that_was_shut_down_does_not(poc: Poc) -> None:
    before = json.loads(poc.ok("poc", "status", "--json"))["participants"]["site-1"]["pid"]
    assert "site-1: restarts" in poc.ok("-f", "poc", "site", "restart", "site-1")
    poc.ok("-f", "poc", "site", "shutdown", "site-2", "--yes")

    def rows() -> dict[str, Any]:
        return json.loads(poc.ok("poc", "status", "--json"))["participants"]

    until(lambda: rows()["site-1"]["registered"] and rows()["site-1"]["pid"] not in (None, before), every=0.3)
    until(lambda: not rows()["site-2"]["running"], every=0.3)
    again = poc.run("-f", "poc", "site", "restart", "site-2")
    assert (again.returncode, "it is not connected" in again.stdout) == (13, True)
    poc.ok("poc", "start", "site-2")


def test_the_console_takes_a_pipe_and_ends_at_the_first_error(poc: Poc) -> None:
    told = poc.ok("-f", "poc", "admin", text="sites\n\n# nothing\nhelp\nbye\nsites\n")
    assert len(re.findall(r"site-\d +connected", told)) == 2
    assert "monitor JOB" in told
    done = poc.run("-f", "poc", "admin", text="jobz\nsites\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "next: jobs" in done.stderr


class Terminal:
    """The console on a pseudo-terminal."""

    def __init__(self, poc: Poc) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(poc.folder)
            os.execve(sys.executable, [*COMMAND, "-f", "poc", "admin"], {**poc.env, "TERM": "xterm"})
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def until(self, pattern: str, timeout: float = PATIENCE_S) -> str:
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    break
        text, self.seen = self.seen, ""
        return text

    def interrupt(self, pattern: str) -> None:
        """Ctrl-C as a person presses it: again if nothing happens.

        Python's readline sleeps on over a signal that comes in the instant before it waits for the next key: about once
        in a thousand on a busy machine.
        """
        for _ in range(15):
            self.type("\x03")
            if select.select([self.fd], [], [], 2.0)[0]:
                break
        self.until(pattern)

    def ended(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_console_completes_remembers_and_survives_ctrl_c(poc: Poc) -> None:
    terminal = Terminal(poc)
    try:
        terminal.until("fedspan> ")
        terminal.type("sub\tjo\t\n")  # submit job/
        told = terminal.until(r"submitted; monitor plus-[0-9a-f]{8}[\s\S]*fedspan> ")
        job = re.search(r"plus-[0-9a-f]{8}", told)
        assert job is not None
        terminal.type("nonsense\n")
        terminal.until(r"there is no command 'nonsense'[\s\S]*fedspan> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.interrupt("fedspan> ")
        terminal.type(f"monitor {job[0]}\n")
        terminal.until(r"ended FINISHED[\s\S]*fedspan> ")
        terminal.type("\x1b[A\x1b[A\n")  # two lines up: nonsense again
        terminal.until(r"there is no command 'nonsense'[\s\S]*fedspan> ")
        terminal.type("\x04")
        assert terminal.ended() == 0
    finally:
        os.close(terminal.fd)
    history = poc.folder / "xdg" / "fedspan" / "admin-history"
    assert "submit job" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_down_leaves_nothing_behind(poc: Poc) -> None:
    assert poc.processes()
    assert "nothing is left" in poc.ok("poc", "down")
    assert poc.processes() == []
    assert not (poc.folder / "poc").exists()
    assert "no federation" in poc.ok("poc", "down")
    (poc.folder / "mine").mkdir()
    (poc.folder / "mine/file").touch()
    kept = poc.run("poc", "up", "--dir", "mine")
    assert (kept.returncode, "is not empty" in kept.stderr) == (13, True)
    poc.ok("poc", "down", "--dir", "mine")
    assert (poc.folder / "mine/file").exists()


def test_simulate_by_command(poc: Poc) -> None:
    told = poc.ok("simulate", "job", "-n", "4", "-t", "2", "--to", "simulated")
    assert "round 1 m 0.5" in told
    (folder,) = (poc.folder / "simulated").iterdir()
    assert (folder / "model.safetensors").is_file()
    nowhere = poc.run("simulate", "nowhere")
    assert (nowhere.returncode, "next: fedspan simulate" in nowhere.stderr) == (2, True)
    lacking = poc.run("simulate", "job", "--data", "x")
    assert (lacking.returncode, "NAME=PATH" in lacking.stderr) == (2, True)
