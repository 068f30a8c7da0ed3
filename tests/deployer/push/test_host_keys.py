"""The key that user-data brought vouches for the first login, and for nothing afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer import host_keys
from deployer.errors import HostKeyError, MachineError
from deployer.host_keys import accepted_keys, pin_accepted, rotate_host_key
from deployer.keys import KeyStore
from deployer.sandbox.machines.standalone import machines
from deployer.ssh import Machine, connect, fingerprint, read_pins
from deployer.ssh.connect import scan_host_key
from tests.deployer.push.conftest import SSH_PORT, boot


@dataclass
class Site:
    keys: KeyStore
    address: str

    def login(self) -> Machine:
        pin_accepted(self.keys, "site-1", self.address, SSH_PORT)
        return self.again()

    def again(self) -> Machine:
        keys = self.keys
        return connect(
            self.address, SSH_PORT, "fedspan", keys.login_path, keys.known_hosts, 60, name="site-1", auth_grace_s=0
        )

    def rotate(self) -> bool:
        with self.login() as machine:
            return rotate_host_key(machine, self.keys, "site-1", self.again)

    @property
    def shown(self) -> str:
        return fingerprint(scan_host_key(self.address, SSH_PORT))

    @property
    def boot_key(self) -> str:
        return fingerprint(self.keys.host("site-1").public)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    keys = KeyStore(tmp_path / "ssh")
    with machines() as some:
        yield Site(keys, boot(some, keys, "site-1", 8002))


def test_after_the_first_login_the_boot_key_is_dead(site: Site) -> None:
    assert site.shown == site.boot_key
    assert site.rotate()
    assert site.shown != site.boot_key
    pins = read_pins(site.keys.known_hosts, site.address, SSH_PORT)
    assert [pin.fingerprint for pin in pins] == [site.shown]
    assert not site.rotate()  # once
    private = site.keys.folder.rglob("*rotated*")
    assert not [path for path in private if "PRIVATE" in path.read_text()]
    site.keys.pin(site.address, SSH_PORT, site.keys.host("site-1").public)  # whoever has it from user-data
    with pytest.raises(HostKeyError):
        site.again()


@pytest.mark.parametrize("moment", ["before the key is there", "before it was seen"])
def test_a_rotation_that_was_interrupted_goes_on(site: Site, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> Machine:
        raise Killed

    with monkeypatch.context() as patch, site.login() as machine:
        if moment == "before the key is there":
            patch.setattr(machine, "put_file", killed)
        with pytest.raises(Killed):
            rotate_host_key(machine, site.keys, "site-1", killed)
    assert len(accepted_keys(site.keys, "site-1")) == 2
    assert site.rotate()
    assert accepted_keys(site.keys, "site-1")[1:] == []
    assert site.shown != site.boot_key
    site.login().close()


def test_a_replaced_machine_starts_with_its_own_boot_key(site: Site) -> None:
    assert site.rotate()
    site.keys.renew_host("site-1")
    assert accepted_keys(site.keys, "site-1") == [site.keys.host("site-1").public]
    with pytest.raises(HostKeyError):
        site.login()  # the machine here was not replaced


def test_an_ssh_server_that_does_not_reload_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.login() as machine, pytest.raises(MachineError, match="does not reload"):
        host_keys._reload(machine)  # this machine has no systemctl
