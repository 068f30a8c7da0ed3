"""The timer that turns an idle machine off: what systemd makes of it, what its line of shell decides, who holds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployer.deallocation import SCRIPT_PATH, Deallocation
from deployer.errors import UnreachableError
from deployer.idle import apply_idle, held, in_words, promise
from deployer.idle_units import (
    HOLD_MIN,
    HOLD_PATH,
    MARK_PATH,
    SERVICE,
    SERVICE_PATH,
    TIMER,
    TIMER_PATH,
    check_line,
    service_text,
    timer_text,
)
from deployer.realm import Management
from deployer.sandbox.machines.timer import Repeated, end_of, repeated
from tests.deployer.push.conftest import MakeMachine
from tests.waiting import until

analyze = shutil.which("systemd-analyze")
NOTE = "run/fedspan-idle"


@pytest.mark.skipif(analyze is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("deallocate", [(), ("/usr/bin/python3", "-I", "/usr/local/lib/fedspan/deallocate.py")])
def test_systemd_takes_the_units_without_a_word(tmp_path: Path, deallocate: tuple[str, ...]) -> None:
    (tmp_path / TIMER).write_text(timer_text())
    (tmp_path / SERVICE).write_text(service_text(7200, deallocate))
    argv = [str(analyze), "verify", "--man=no", str(tmp_path / TIMER), str(tmp_path / SERVICE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    about = [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line or "idle" in line]
    assert about == []


class Box:
    """A machine's files, and the unit's own line on them. `later` makes what it has noted so many seconds older."""

    def __init__(self, root: Path, idle_s: int) -> None:
        self.root = root
        for name in ("run", "var/lib/fedspan/state", "etc/systemd/system"):
            (root / name).mkdir(parents=True)
        (root / SERVICE_PATH[1:]).write_text(service_text(idle_s))
        (root / TIMER_PATH[1:]).write_text(timer_text())
        found = repeated(root)
        assert found is not None
        self.timer: Repeated = found
        self.mark, self.hold = root / MARK_PATH[1:], root / HOLD_PATH[1:]

    def looks(self) -> bool:
        """One look; whether it turns the machine off."""
        return self.timer.says_off(self.root)

    def later(self, seconds: int) -> None:
        since, seen = (self.root / NOTE).read_text().split()
        (self.root / NOTE).write_text(f"{int(since) - seconds} {seen}\n")

    def at(self, path: Path, seconds: float) -> None:
        """Touch a file, at so many seconds from now."""
        path.touch()
        os.utime(path, (time.time() + seconds,) * 2)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "a machine", 600)


def test_a_machine_is_turned_off_when_its_mark_has_not_changed_for_so_long(box: Box) -> None:
    box.mark.touch()
    assert not box.looks()
    box.later(500)
    assert not box.looks()
    box.later(100)
    assert box.looks()


def test_a_job_that_runs_keeps_it_on(box: Box) -> None:
    for minute in range(15):
        box.at(box.mark, minute)  # the agent's touch since the last look
        assert not box.looks()
        box.later(60)
    box.later(500)
    assert not box.looks()
    box.later(100)
    assert box.looks()


def test_without_a_mark_it_counts_from_the_boot(box: Box) -> None:
    """An agent that never ran must not bill for ever."""
    assert not box.looks()
    box.later(600)
    assert box.looks()


def test_a_boot_counts_anew_however_old_the_mark_is(box: Box) -> None:
    box.at(box.mark, -86_400)
    box.looks()
    box.later(600)
    assert box.looks()
    (box.root / NOTE).unlink()  # /run is empty after a boot
    assert not box.looks()
    # and should it not be: the kernel's clock has begun anew
    box.later(-10_000_000)
    assert not box.looks()
    box.later(600)
    assert box.looks()


@pytest.mark.parametrize("step", [-40 * 86_400, 40 * 86_400])
def test_no_step_of_the_clock_turns_it_off_or_keeps_it_on(box: Box, step: int) -> None:
    box.at(box.mark, 0)
    assert not box.looks()
    box.at(box.mark, step)  # the agent's next touch, after the clock was put back or ahead: activity
    assert not box.looks()
    box.later(500)
    assert not box.looks()
    box.later(100)
    assert box.looks()


def test_a_command_at_work_on_it_keeps_it_on_until_it_ends_or_was_killed_long_ago(box: Box) -> None:
    box.mark.touch()
    box.looks()
    box.at(box.hold, -60 * (HOLD_MIN - 2))
    box.later(6000)
    assert not box.looks()
    box.hold.unlink()
    assert not box.looks()  # it counts from the command's end
    box.later(600)
    assert box.looks()
    box.at(box.hold, -60 * (HOLD_MIN + 2))
    assert box.looks()


def test_it_says_in_the_journal_why(box: Box) -> None:
    box.looks()
    box.later(600)
    env = {"FEDSPAN_ROOT": str(box.root), "PATH": os.environ["PATH"]}
    done = subprocess.run(["/bin/sh", "-c", check_line(600)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no job ran here for 600 seconds: turning off\n", "")


def test_the_sandboxs_machines_obey_it_only_whole(tmp_path: Path) -> None:
    box = Box(tmp_path / "machine", 600)
    assert (box.timer.first_s, box.timer.every_s, box.timer.line) == (60, 60, check_line(600))
    assert end_of(box.root) is None
    service = box.root / SERVICE_PATH[1:]
    service.write_text(service_text(600).replace("systemctl --no-block poweroff", "true"))
    assert repeated(box.root) is None
    service.unlink()
    assert repeated(box.root) is None


def test_the_timer_is_written_changed_and_removed_in_place(make_machine: MakeMachine) -> None:
    box = make_machine()
    units = [box.root / path.lstrip("/") for path in (TIMER_PATH, SERVICE_PATH)]
    with box.connect() as machine:
        assert apply_idle(machine, None) is False
        assert apply_idle(machine, 7200) is True
        assert [unit.read_text() for unit in units] == [timer_text(), service_text(7200)]
        assert apply_idle(machine, 7200) is False
        assert apply_idle(machine, 300) is True
        assert units[1].read_text() == service_text(300)
        how = Deallocation("/v", Management("https://arm", "http://metadata", None))
        assert apply_idle(machine, 300, how) is True
        assert apply_idle(machine, 300, how) is False
        assert units[1].read_text() == service_text(300, how.argv)
        assert (box.root / SCRIPT_PATH.lstrip("/")).is_file()
        assert apply_idle(machine, None) is True
        assert not any(unit.exists() for unit in units)


def test_a_hold_is_there_while_it_is_needed_and_is_renewed(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployer.idle_units.RENEW_S", 0.1)
    box = make_machine()
    hold = box.root / HOLD_PATH.lstrip("/")
    hold.parent.mkdir(exist_ok=True)
    with box.connect() as machine:
        with held(machine, 300):
            os.utime(hold, (0, 0))
            until(lambda: hold.stat().st_mtime > 0, 20, "its renewal")
        assert not hold.exists()
        with held(machine, None):
            assert not hold.exists()


def test_a_connection_that_broke_is_told_as_it_is_and_the_hold_ends_by_itself() -> None:
    def run(argv: list[str]) -> None:
        if argv[0] == "rm":
            raise UnreachableError("gone too", participant="site-1")

    machine = SimpleNamespace(name="site-1", path=str, run_privileged=run)
    with pytest.raises(KeyError, match="what went wrong"), held(cast(Any, machine), 300):
        raise KeyError("what went wrong")


def test_what_becomes_of_it_is_said() -> None:
    assert promise(None, "aws", terminated=False) == ""
    told = promise(7200, "aws", terminated=False)
    assert told.startswith("turns itself off when no job ran for 2 h: AWS stops it, address and disks stay")
    assert "AWS terminates it, address and state volume stay" in promise(5400, "aws", terminated=True)
    assert "90 min: Azure deallocates it, address and disks stay" in promise(5400, "azure", terminated=True)
    assert (
        in_words(None, "registered", "registered", by_itself=False) == in_words(7200, "down", "", by_itself=True) == ""
    )
    assert in_words(86400, "registered", "registered", by_itself=False) == "turns itself off when no job ran for 1 d"
    assert "it may have: fedspan status --refresh" in in_words(7200, "registered", "lost 5 min ago", by_itself=False)
    assert "nothing but fedspan up or start turns it on" in in_words(7200, "stopped", "lost 5 min ago", by_itself=True)
    assert in_words(7200, "stopped", "lost 5 min ago", by_itself=False) == ""  # somebody stopped it
