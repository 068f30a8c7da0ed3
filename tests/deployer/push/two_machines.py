"""A federation of two emulated machines, installed as `up` does it, for the tests of what is pushed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer import bundle as bundles
from deployer.bootstrap import Installed, install_participant, runtime_status, runtime_stop
from deployer.keys import KeyStore
from deployer.sandbox.machines.standalone import machines
from deployer.ssh import Machine, connect
from deployer.wheels import own_wheel
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import ProvisionResult, provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace
from tests.deployer.push.conftest import SSH_PORT, boot

SPEC = """\
version: 1
name: digits
server: {target: host, host: 127.0.0.1, user: fedspan, port: PORT}
sites:
  site-1: {target: host, host: 127.0.0.1, user: fedspan, data: {digits: /srv/data/digits}}
  site-2: {target: host, host: 127.0.0.1, user: fedspan, data: {digits: /srv/data/digits}}
admins:
  ana@hospital-a.example: {role: lead}
"""


@dataclass
class World:
    """A federation of two machines, both installed: `login(name)` opens a connection."""

    provisioned: ProvisionResult
    cache: Path
    keys: KeyStore
    addresses: dict[str, str]
    port: int
    first: dict[str, Installed]

    @property
    def endpoint(self) -> str:
        return f"{self.addresses['server']}:{self.port}"

    def login(self, name: str) -> Machine:
        return connect(
            self.addresses[name], SSH_PORT, "fedspan", self.keys.login_path, self.keys.known_hosts, 20, name=name
        )

    def install_alone(self, name: str) -> Installed:
        with self.login(name) as machine:
            return self.install(machine)

    def install(self, machine: Machine, kit: Path | None = None, endpoint: str | None = None) -> Installed:
        where = kit or self.provisioned.kits[machine.name]
        labels = {"deployed-by": "lead", "target": "aws"}
        return install_participant(machine, where, self.cache, endpoint or self.endpoint, labels)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("digits")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (folder / "federation.yml").write_text(SPEC.replace("PORT", str(port)))
    workspace = Workspace.find(folder / "federation.yml")
    source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "only for this test"})
    provisioned = provision(workspace, load_spec(folder / "federation.yml"), source)
    keys = KeyStore(workspace.ssh_dir)
    frozen, patch = own_wheel(), pytest.MonkeyPatch()
    patch.setattr(bundles, "own_wheel", lambda: frozen)  # somebody may be editing fedspan while its tests run
    patch.setattr(bundles, "_BUILT", {})
    with machines() as some, patch.context():
        addresses = {name: boot(some, keys, name, port) for name in ("server", "site-1")}
        made = World(provisioned, folder / "cache", keys, addresses, port, {})
        with ThreadPoolExecutor() as pool:  # as `up` does it
            made.first.update(zip(addresses, pool.map(made.install_alone, addresses), strict=True))
        yield made
        for name in addresses:
            with made.login(name) as machine:
                runtime_stop(machine)


@pytest.fixture
def site(world: World) -> Iterator[Machine]:
    with world.login("site-1") as machine:
        yield machine


def registered(server: Machine, name: str) -> bool:
    status = runtime_status(server)
    return status is not None and bool(status["sites"].get(name, {}).get("registered"))
