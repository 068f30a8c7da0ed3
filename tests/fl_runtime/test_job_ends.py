"""A job's end: whatever it has started ends with it, and all of it together gets no more memory than it asked for."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from federation import PATIENCE_S, until
from lone_site import Site, how, start

from fl_runtime.agent import cgroups
from fl_runtime.agent.isolation import means
from fl_runtime.errors import StorageError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")

FAMILY = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # a daemon, by the book
        while True:
            time.sleep(1)
    os._exit(0)
if os.fork() == 0:
    os.setpgid(0, 0)
    while True:
        time.sleep(1)
os.wait()
print("family", os.getpid(), flush=True)
"""


def processes_named(word: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                argv = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                if any(arg == word.encode() for arg in argv):
                    found.append(int(entry))
    return found


@pytest.mark.parametrize("left", ["while True:\n    time.sleep(1)\n", "sys.exit(3)\n"])
def test_whatever_it_has_started_ends_with_it(site: Site, left: str) -> None:
    place = site.place(FAMILY + left, how(site))
    word = str(place.bundle / "train.py")
    child = start(place)
    until(lambda: place.log.exists() and "family" in place.log.read_text(), what="the family is there")
    if "exit" not in left:
        assert len(processes_named(word)) == 3
        child.terminate()  # the keeper: what the agent does on abort
        assert child.wait(PATIENCE_S) == 128 + 9
    else:
        assert child.wait(PATIENCE_S) == 3
        assert place.recorded(1)["code"] == 3
    assert processes_named(word) == []


def test_a_killed_keeper_takes_the_script_along(site: Site) -> None:
    place = site.place("import time\nprint('here', flush=True)\ntime.sleep(600)\n", how(site))
    child = start(place)
    until(lambda: place.log.exists() and "here" in place.log.read_text())
    child.kill()
    child.wait()
    until(lambda: not processes_named(str(place.bundle / "train.py")))


@needs_root
def test_a_killed_keepers_daemons_are_ended_by_their_user(site: Site) -> None:
    chosen = how(site)
    if not chosen.exclusive:
        pytest.skip("no user of their own here")
    place = site.place(FAMILY + "time.sleep(600)\n", chosen)
    child = start(place)
    until(lambda: place.log.exists() and "family" in place.log.read_text())
    child.kill()
    child.wait()
    assert processes_named(str(place.bundle / "train.py"))
    place.sweep()
    assert not processes_named(str(place.bundle / "train.py"))


def test_a_killed_keepers_daemons_are_ended_by_their_environment_where_their_user_is_not_theirs_alone(
    site: Site,
) -> None:
    place = site.place(FAMILY + "time.sleep(600)\n", replace(how(site), user=None, exclusive=False))
    word = str(place.bundle / "train.py")
    other = site.place("", how(site), "another")
    child = start(place)
    until(lambda: place.log.exists() and "family" in place.log.read_text())
    child.kill()
    child.wait()
    other.sweep()
    assert processes_named(word)
    place.sweep()
    assert not processes_named(word)


def test_a_keeper_without_an_order_starts_nothing(site: Site) -> None:
    """Its agent could not note it, or has died before: nothing may run that nobody knows of."""
    place = site.place("print('here', flush=True)\n", how(site))
    pids: list[int] = []

    def fail(pid: int) -> None:
        pids.append(pid)
        raise StorageError("The disk is full")

    with pytest.raises(StorageError):
        start(place, note=fail)
    assert not Path(f"/proc/{pids[0]}").exists()
    assert not place.record.exists()
    assert "here" not in place.log.read_text()


GREEDY = "import numpy as np\nkept = []\nfor _ in range(20):\n    kept.append(np.ones(4_000_000))\nprint('fine')\n"


@pytest.fixture(params=["group", "count"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By a control group of the kernel where we may make one, and by the keeper's own count."""
    if request.param == "count":
        monkeypatch.setattr(cgroups, "_base", lambda: None)
    elif cgroups._base() is None:
        pytest.skip("no control groups may be made here")
    return str(request.param)


def test_a_job_gets_no_more_memory_than_it_asked_for(site: Site, held: str) -> None:
    assert "fine" in site.run(GREEDY, how(site))
    printed = site.run(GREEDY, how(site), memory=400_000_000)
    assert "fine" not in printed


def test_a_tree_of_processes_shares_its_memory(site: Site, held: str) -> None:
    script = "import os, time\nos.fork()\nos.fork()\nkept = bytearray(200_000_000)\ntime.sleep(600)\n"
    place = site.place(script, how(site))
    child = start(place, memory=500_000_000)
    assert child.wait(PATIENCE_S) == 128 + 9
    assert "memory" in place.recorded(1)["why"]


def test_memory_that_is_shared_or_lies_in_tmp_counts_and_the_group_can_be_removed_then(site: Site) -> None:
    if cgroups._base() is None or not means().mounts:
        pytest.skip("no control groups, or no private /dev/shm here")
    script = "print('here', flush=True)\nopen('/dev/shm/x', 'wb').write(bytes(300_000_000))\nprint('fine')\n"
    place = site.place(script, how(site))
    child = start(place, memory=150_000_000)
    folder = cgroups._base()[0] / cgroups._name(site.state, "job-1")
    assert folder.is_dir()
    child.wait(PATIENCE_S)
    assert place.log.read_text() == "here\n"
    assert "memory" in place.recorded(1)["why"]
    cgroups.remove(site.state, "job-1")
    assert not folder.exists()
