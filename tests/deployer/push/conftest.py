"""Machines for the push tests: an SSH server of its own process, a deployment key, pinned host keys."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployer.keys import KeyPair, KeyStore, make_pair
from deployer.ssh import HostKeyPin, Machine, connect, pin_host_key

SERVER = Path(__file__).with_name("ssh_server.py")


@dataclass
class Box:
    """A running SSH machine and how to log in to it."""

    root: Path
    port: int
    key_path: Path
    known_hosts: Path
    host_public_key: str
    process: subprocess.Popen[bytes]
    address: str = "127.0.0.1"
    user: str = "fedspan"

    def connect(self, **options: Any) -> Machine:
        options.setdefault("deadline_s", 20.0)
        options.setdefault("name", "site-1")
        return connect(self.address, self.port, self.user, self.key_path, self.known_hosts, **options)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


MakeMachine = Callable[..., Box]


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[MakeMachine]:
    """Starts machines; `make_machine(name, pin=False, **spec)`. All are stopped afterwards."""
    made: list[Box] = []
    keys = KeyStore(tmp_path / "ssh")
    public_key = keys.login("digits").public

    def make(name: str = "m1", *, pin: bool = True, host_key: KeyPair | None = None, **spec: Any) -> Box:
        pair = host_key or make_pair(name)
        root = tmp_path / name
        full = {"root": str(root), "host_key": pair.private, "public_key": public_key, **spec}
        process = subprocess.Popen([sys.executable, str(SERVER), json.dumps(full)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        assert line, "the SSH server did not start"
        machine = Box(
            root,
            json.loads(line)["port"],
            tmp_path / "ssh" / "id_ed25519",
            tmp_path / "ssh" / "known_hosts",
            pair.public,
            process,
        )
        made.append(machine)
        if pin:
            pin_host_key(machine.known_hosts, HostKeyPin(machine.address, machine.port, pair.public))
        return machine

    yield make
    for machine in made:
        if machine.process.poll() is None:
            machine.stop()


@pytest.fixture
def machine(make_machine: MakeMachine) -> Box:
    return make_machine()


@pytest.fixture
def login(machine: Box) -> Iterator[Machine]:
    with machine.connect() as session:
        yield session
