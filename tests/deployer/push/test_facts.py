"""The first question to a machine: answered by whatever Python is there, or told what is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deployer.errors import MachineError
from deployer.facts import parse_facts
from deployer.ssh import Machine
from tests.deployer.push.conftest import MakeMachine


def commands(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        found = next(Path(part, name) for part in os.defpath.split(":") if Path(part, name).exists())
        (folder / name).symlink_to(found)
    return folder


def fake_python(folder: Path, name: str, version: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\ncase "$2" in *print*) echo {version};; *) exit 1;; esac\n')
    path.chmod(0o755)


def test_a_machine_tells_what_it_is(login: Machine) -> None:
    facts = login.facts()
    assert facts.version[:2] == sys.version_info[:2] or facts.version >= (3, 10, 0)
    assert facts.arch == os.uname().machine
    assert Path(facts.python).is_absolute()
    assert facts.root
    assert facts.path("/opt/fedspan") == facts.root + "/opt/fedspan"
    assert not facts.systemd  # the host's is not the machine's
    assert not facts.sudo
    assert facts.disk_free > 0


def test_a_machine_with_an_old_python_is_told_which_it_has(make_machine: MakeMachine, tmp_path: Path) -> None:
    path = commands(tmp_path / "bin", "sh", "env")
    fake_python(path, "python3", "3.8")
    fake_python(path, "python3.10", "3.9")
    with make_machine(path=str(path)).connect() as machine, pytest.raises(MachineError) as caught:
        machine.facts()
    assert "no Python 3.10 or newer" in str(caught.value)
    assert "found 3.8, 3.9" in str(caught.value)


def test_a_machine_without_python_is_told(make_machine: MakeMachine, tmp_path: Path) -> None:
    path = commands(tmp_path / "bin", "sh", "env")
    with make_machine(path=str(path)).connect() as machine, pytest.raises(MachineError, match="found none"):
        machine.facts()


def test_a_newer_python_beside_an_old_one_is_taken(make_machine: MakeMachine, tmp_path: Path) -> None:
    path = commands(tmp_path / "bin", "sh", "env")
    fake_python(path, "python3", "3.8")
    base = getattr(sys, "_base_executable", sys.executable)
    (path / "python3.12").symlink_to(base)
    with make_machine(path=str(path)).connect() as machine:
        assert machine.facts().version[:2] == sys.version_info[:2]


def test_what_login_scripts_print_does_not_disturb(login: Machine) -> None:
    with pytest.raises(MachineError, match="cannot be read"):
        parse_facts("Welcome to the machine\n", "site-1")
