"""Through jump hosts and with an agent's keys: who shows another key on the way gets nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.errors import HostKeyError, UnreachableError
from deployer.keys import KeyStore, host_entry, make_pair
from deployer.ssh.hops import Hop, parse_hops
from tests.deployer.push.conftest import Box, MakeMachine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's home: its known_hosts is what jump hosts are judged by."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    return tmp_path / "home"


def know(home: Path, box: Box) -> None:
    with open(home / ".ssh" / "known_hosts", "a") as file:
        file.write(f"{host_entry(box.address, box.port)} {box.host_public_key}\n")


def hop(box: Box) -> Hop:
    return Hop(box.address, box.port)


def test_a_machine_is_reached_through_two_jump_hosts(make_machine: MakeMachine, home: Path) -> None:
    first, second = make_machine("first", forward=True), make_machine("second", forward=True)
    behind = make_machine("behind")
    know(home, first)
    know(home, second)
    with behind.connect(hops=(hop(first), hop(second))) as machine:
        assert machine.run(["sh", "-c", 'echo "$FEDSPAN_ROOT"']).stdout.strip() == str(behind.root)


def test_a_bastion_that_knows_only_the_operator_lets_through(make_machine: MakeMachine, home: Path) -> None:
    own = make_pair("ana")
    (home / ".ssh" / "id_ed25519").write_text(own.private)
    bastion, behind = make_machine("bastion", forward=True, public_key=own.public), make_machine("behind")
    know(home, bastion)
    with behind.connect(hops=(hop(bastion),)) as machine:
        assert machine.run(["true"]).status == 0


def test_a_jump_host_that_nobody_knows_gets_no_login_and_the_mending_command_is_told(
    make_machine: MakeMachine, home: Path
) -> None:
    first, behind = make_machine("first", forward=True), make_machine("behind")
    with pytest.raises(HostKeyError) as caught:
        behind.connect(hops=(hop(first),))
    assert f"ssh-keyscan -t ed25519 -p {first.port} {first.address}" in str(caught.value)
    assert str(home / ".ssh" / "known_hosts") in str(caught.value)


def test_a_jump_host_with_another_key_is_never_logged_in_to(make_machine: MakeMachine, home: Path) -> None:
    first, behind = make_machine("first", forward=True), make_machine("behind")
    (home / ".ssh" / "known_hosts").write_text(f"{host_entry(first.address, first.port)} {behind.host_public_key}\n")
    with pytest.raises(HostKeyError, match="another SSH host key") as caught:
        behind.connect(hops=(hop(first),))
    known = home / ".ssh" / "known_hosts"
    assert f"ssh-keygen -f {known} -R '[{first.address}]:{first.port}'" in str(caught.value)


def test_a_jump_host_that_lets_nobody_through_is_told(make_machine: MakeMachine, home: Path) -> None:
    first, behind = make_machine("first"), make_machine("behind")
    know(home, first)
    with pytest.raises(UnreachableError, match="the jump host can't reach"):
        behind.connect(hops=(hop(first),), deadline_s=0.5)


def test_jump_hosts_are_written_as_for_ssh() -> None:
    assert parse_hops("ana@bastion.example:2222,10.0.0.1") == (Hop("bastion.example", 2222, "ana"), Hop("10.0.0.1"))
    with pytest.raises(ValueError, match="is no jump host"):
        parse_hops("ana@bastion:99999")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent of this test's own."""
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        pytest.skip("ssh-agent and ssh-add are not installed")
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says its variables once it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.terminate()
        process.wait(60)


def test_a_key_that_only_the_agent_has_logs_in(make_machine: MakeMachine, agent: Path, tmp_path: Path) -> None:
    box = make_machine("site-1")
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(box.key_path)], env=environment, check=True, timeout=60)
    box.key_path.unlink()
    other = KeyStore(tmp_path / "other").login("other")
    assert other.public
    with pytest.raises(UnreachableError, match="cannot be used"):
        box.connect(deadline_s=1)
    with box.connect(agent=True) as machine:
        assert machine.run(["true"]).status == 0
