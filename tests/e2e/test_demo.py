"""`fedspan demo` ends well, tells its seven phases, and leaves no process, port, machine or resource."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def processes_of(home: Path) -> list[str]:
    """Command lines of processes whose environment names this HOME (or a folder below it)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(home).encode() in environment and command:
            found.append(command)
    return found


@pytest.fixture
def home(tmp_path: Path, cache: Path) -> dict[str, str]:
    """The environment of a new user."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(cache), "COLUMNS": "160"}


def demo(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    Path(environment["HOME"]).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "deployer.cli", "demo", "--folder", str(folder), *words]
    return subprocess.run(
        command, env=environment, cwd=environment["HOME"], capture_output=True, text=True, check=False, timeout=280
    )


@pytest.mark.slow
def test_the_demo_wins_and_leaves_nothing(home: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = demo(home, tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    phases = re.findall(r"^(\d)  (\w+)", done.stdout, re.MULTILINE)
    assert [name for _, name in phases] == ["provision", "plan", "up", "data", "train", "result", "down"]
    assert "0 rows: it carries code only" in done.stdout
    assert "44 of 44 resources deleted, 0 left" in done.stdout
    assert "processes 0, ports 0, left 0 (asked of both clouds)" in done.stdout
    accuracy = {
        label.strip(): float(value)
        for label, value in re.findall(r"^  (\S+(?: alone)?) +█* +([\d.]+)%", done.stdout, re.MULTILINE)
    }
    assert accuracy["federated"] > max(value for label, value in accuracy.items() if label.endswith("alone"))
    assert (tmp_path / "demo/results/plot.png").read_bytes().startswith(b"\x89PNG")
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_a_demo_that_fails_says_so_and_takes_everything_down(home: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    run = [sys.executable, "-m", "deployer.cli", "sandbox"]
    Path(home["HOME"]).mkdir()
    subprocess.run([*run, "start"], env=home, check=True, capture_output=True, timeout=60)
    try:
        fault = [*run, "fault", "--no-capacity", "eu-west-1"]
        subprocess.run(fault, env=home, check=True, capture_output=True, timeout=60)
        done = demo(home, tmp_path / "demo")
        assert done.returncode == 8, done.stdout + done.stderr
        assert "phase up failed; taking all down" in done.stdout
        assert "site-2" in done.stderr
        assert "next:" in done.stderr
        assert "left 0 (asked of both clouds)" in done.stdout
    finally:
        subprocess.run([*run, "stop"], env=home, check=True, capture_output=True, timeout=60)
    assert processes_of(tmp_path) == []


def test_a_folder_that_is_not_a_demos_is_never_removed(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    done = demo(home, tmp_path / "mine")
    assert done.returncode == 13
    assert "not a demo's folder" in done.stderr
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    assert processes_of(tmp_path) == []
