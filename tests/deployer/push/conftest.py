"""Machines for the push tests: an SSH server of its own process, a deployment key, pinned host keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.keys import KeyPair, KeyStore, make_pair
from deployer.sandbox.machines.standalone import Machines
from deployer.sandbox.model import MachineSpec, Rule
from deployer.ssh import HostKeyPin, Machine, connect, pin_host_key

SSH_PORT = 2222
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
        self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


MakeMachine = Callable[..., Box]


def start_box(folder: Path, name: str, pin: bool, host_key: KeyPair | None, spec: dict[str, Any]) -> Box:
    keys = KeyStore(folder / "ssh")
    pair = host_key or make_pair(name)
    root = folder / name
    full = {"root": str(root), "host_key": pair.private, "public_key": keys.login("digits").public, **spec}
    process = subprocess.Popen([sys.executable, str(SERVER), json.dumps(full)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    assert line, "the SSH server did not start"
    box = Box(root, json.loads(line)["port"], keys.login_path, keys.known_hosts, pair.public, process)
    if pin:
        pin_host_key(box.known_hosts, HostKeyPin(box.address, box.port, pair.public))
    return box


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[MakeMachine]:
    """Starts machines; `make_machine(name, pin=False, **spec)`. All are stopped afterwards."""
    made: list[Box] = []

    def make(name: str = "m1", *, pin: bool = True, host_key: KeyPair | None = None, **spec: Any) -> Box:
        made.append(start_box(tmp_path, name, pin, host_key, spec))
        return made[-1]

    yield make
    for box in made:
        if box.process.poll() is None:
            box.stop()


@pytest.fixture(scope="session")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = start_box(tmp_path_factory.mktemp("machine"), "m1", True, None, {})
    yield box
    box.stop()


@pytest.fixture
def machine(shared_machine: Box) -> Iterator[Box]:
    """A machine with an empty disk. Its SSH server is shared: a test that stops it takes `make_machine`."""
    yield shared_machine
    for path in shared_machine.root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def login(machine: Box) -> Iterator[Machine]:
    with machine.connect() as session:
        yield session


def boot(some: Machines, keys: KeyStore, name: str, port: int) -> str:
    """An emulated machine that took fedspan's user-data; its host key is pinned. Returns its address."""
    address, host = some.address(), keys.host(name)
    config = {
        "users": [{"name": "fedspan", "ssh_authorized_keys": [keys.login("digits").public]}],
        "ssh_keys": {"ed25519_private": host.private, "ed25519_public": host.public},
        "write_files": [{"path": "/etc/ssh/sshd_config.d/10-fedspan.conf", "content": f"Port {SSH_PORT}\n"}],
    }
    workstation = "198.51.100.10/32"
    some.put(
        MachineSpec(
            id=f"i-{name}",
            cloud="aws",
            account="1",
            region="eu",
            zone=None,
            size="t",
            running=True,
            user_data="#cloud-config\n" + yaml.safe_dump(config),
            login_keys=(),
            public_ip=address,
            private_ip="10.0.0.4",
            ingress=(Rule(SSH_PORT, SSH_PORT, "tcp", workstation), Rule(port, port, "tcp", "0.0.0.0/0")),
            volumes=(),
            tags={"fedspan:participant": name},
        )
    )
    keys.pin(address, SSH_PORT, host.public)
    return address
