"""One daemon for each home, another realm for each start, and nothing left of it, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import until

from deployer.errors import SandboxError
from deployer.sandbox.client import Sandbox
from deployer.sandbox.machines.tree import marked, start_time
from deployer.sandbox.state import SandboxState

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMuZ28LoB9GUp61pLMygjzaVcqudrOkmAY9nr6sEI6tX"


def listening(pid: int) -> int:
    """How many TCP sockets a process listens on."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[3] == "0A" and fields[9] in inodes for fields in lines)


def sandbox_listeners(block: str) -> list[str]:
    """Listening sockets in a sandbox's half /16 (its public and its private addresses)."""
    prefix = ".".join(block.split(".")[:2])
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address = socket.inet_ntoa(bytes.fromhex(fields[1].partition(":")[0])[::-1])
        if fields[3] == "0A" and address.startswith(prefix + ".") and address.split(".")[2] in thirds(block):
            found.append(f"{address}:{int(fields[1].partition(':')[2], 16)}")
    return found


def thirds(block: str) -> set[str]:
    first = int(block.split(".")[2])
    return {str(first + n) for n in range(4)}


def end_of(pids: list[int]) -> None:
    until(lambda: not any(start_time(pid) is not None for pid in pids), what=f"the end of {pids}")


def test_the_second_start_joins_the_first(home: Path) -> None:
    first = Sandbox.ensure()
    second = Sandbox.ensure()
    assert first.realm_id == second.realm_id
    assert first.status()["pid"] == second.status()["pid"]


def test_starts_at_the_same_moment_make_one_daemon(home: Path) -> None:
    found = Sandbox.find()
    if found:
        found.stop()
    code = "from deployer.sandbox.client import Sandbox; print(Sandbox.ensure().realm_id)"
    with ThreadPoolExecutor(4) as pool:
        realms = list(pool.map(lambda _: subprocess.check_output([sys.executable, "-c", code]), range(4)))
    assert len(set(realms)) == 1


def test_stop_leaves_nothing_and_the_next_start_is_another_realm(home: Path) -> None:
    sandbox = Sandbox.ensure()
    sandbox.host("box", "fedspan", KEY)
    machine = sandbox.machines()[0]
    state = sandbox.status()
    block = state["addresses"]
    assert sandbox_listeners(block)
    sandbox.stop()
    assert Sandbox.find() is None
    end_of([state["pid"], machine["pid"]])
    assert sandbox_listeners(block) == []
    assert {path.name for path in home.iterdir()} == {"daemon.log", "daemon.lock", "start.lock"}
    assert marked(os.fsencode(f"FEDSPAN_SANDBOX_HOME={home}")) == []
    assert Sandbox.ensure().realm_id != sandbox.realm_id
    with pytest.raises(SandboxError, match="has ended") as caught:
        sandbox.machines()
    assert "another one runs" in str(caught.value)
    Sandbox.ensure().stop()
    with pytest.raises(SandboxError, match="has ended") as caught:
        sandbox.machines()
    assert "fedspan sandbox start" in str(caught.value)


def test_sigterm_ends_it_in_order(home: Path) -> None:
    sandbox = Sandbox.ensure()
    pid = sandbox.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    end_of([pid])
    assert Sandbox.find() is None
    assert not (home / "state.json").exists()


def test_a_killed_daemon_takes_its_machines_along_and_the_next_start_sweeps_up(home: Path) -> None:
    sandbox = Sandbox.ensure()
    for n in range(3):
        sandbox.host(f"box-{n}", "fedspan", KEY)
    pids = [machine["pid"] for machine in sandbox.machines()]
    daemon = sandbox.status()["pid"]
    block = sandbox.status()["addresses"]
    os.kill(daemon, signal.SIGKILL)
    end_of([daemon, *pids])
    assert sandbox_listeners(block) == []
    assert Sandbox.find() is None
    assert (home / "machines").exists()
    again = Sandbox.ensure()
    assert again.realm_id != sandbox.realm_id
    assert again.machines() == []
    assert list((home / "machines").iterdir()) == []


def test_machines_that_were_stopped_by_a_debugger_when_the_daemon_died_are_swept_up(home: Path) -> None:
    sandbox = Sandbox.ensure()
    sandbox.host("frozen", "fedspan", KEY)
    machine = sandbox.machines()[0]["pid"]
    daemon = sandbox.status()["pid"]
    os.kill(machine, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    end_of([daemon])
    assert start_time(machine) is not None
    Sandbox.ensure()
    end_of([machine])


def test_a_state_file_of_a_dead_daemon_whose_pid_lives_again_is_not_believed(home: Path) -> None:
    sandbox = Sandbox.ensure()
    data = json.loads((home / "state.json").read_text())
    sandbox.stop()
    (home / "state.json").write_text(json.dumps({**data, "pid": os.getpid()}))
    assert Sandbox.find() is None
    assert Sandbox.ensure().status()["pid"] != os.getpid()
    for garbage in ("", "{", "[]", "{}", '{"pid": "x"}', json.dumps({**data, "control": "nonsense"})):
        saved = (home / "state.json").read_text()
        (home / "state.json").write_text(garbage)
        assert Sandbox.find() is None
        (home / "state.json").write_text(saved)


def test_what_keeps_it_from_starting_is_told_with_the_log(home: Path, tmp_path: Path) -> None:
    found = Sandbox.find()
    if found:
        found.stop()
    blocked = tmp_path / "home"
    blocked.write_text("a file")
    before = os.environ["FEDSPAN_SANDBOX_HOME"]
    try:
        os.environ["FEDSPAN_SANDBOX_HOME"] = str(blocked)
        with pytest.raises(SandboxError, match="can't be used") as caught:
            Sandbox.ensure()
        assert "FEDSPAN_SANDBOX_HOME" in str(caught.value)
    finally:
        os.environ["FEDSPAN_SANDBOX_HOME"] = before


def test_a_daemon_that_fails_at_its_start_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Sandbox.find()
    if found:
        found.stop()
    # A sitecustomize that breaks the daemon, as a broken installation would.
    from deployer.sandbox import launch

    real = launch._daemon_environment
    monkeypatch.setattr(launch, "_daemon_environment", lambda h: {**real(h), "PYTHONHASHSEED": "nonsense"})
    with pytest.raises(SandboxError, match="did not start") as caught:
        Sandbox.ensure()
    assert "PYTHONHASHSEED" in str(caught.value)
    assert "daemon.log" in str(caught.value)
    monkeypatch.undo()
    os.environ["FEDSPAN_SANDBOX_HOME"] = str(home)
    Sandbox.ensure()


def test_two_sandboxes_live_side_by_side(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    one = Sandbox.ensure()
    other_home = tmp_path_factory.mktemp("other")
    os.environ["FEDSPAN_SANDBOX_HOME"] = str(other_home)
    try:
        two = Sandbox.ensure()
        try:
            assert two.realm_id != one.realm_id
            assert two.status()["addresses"] != one.status()["addresses"]
            assert two.host("box", "fedspan", KEY) != one.host("box", "fedspan", KEY)
        finally:
            two.stop()
        assert one.status()["realm_id"] == one.realm_id
    finally:
        os.environ["FEDSPAN_SANDBOX_HOME"] = str(home)


def test_its_files_are_its_owners_only(home: Path) -> None:
    Sandbox.ensure()
    assert home.stat().st_mode & 0o077 == 0
    assert (home / "state.json").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_an_idle_daemon_uses_next_to_no_processor_time(home: Path) -> None:
    pid = Sandbox.ensure().status()["pid"]

    def used_in_two_seconds() -> int:
        def used() -> int:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        before = used()
        time.sleep(2)
        return used() - before

    end_at = time.monotonic() + 60  # the clouds' libraries load in the background, on a busy machine for long
    while (ticks := used_in_two_seconds()) > 4:
        assert time.monotonic() < end_at, f"{ticks / 2} % of a processor"


def test_a_state_of_another_version_is_refused_with_what_to_do(home: Path) -> None:
    Sandbox.ensure()
    path = home / "state.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "version": "0.0.1"}))
        with pytest.raises(SandboxError, match=r"is fedspan 0\.0\.1") as caught:
            Sandbox.ensure()
        assert "fedspan sandbox stop" in str(caught.value)
    finally:
        path.write_text(text)


def test_state_is_found_only_where_it_lives(home: Path) -> None:
    Sandbox.ensure()
    assert SandboxState.load(home) is not None
    assert SandboxState.load(home / "elsewhere") is None
