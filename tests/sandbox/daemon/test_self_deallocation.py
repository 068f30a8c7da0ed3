"""A machine in the emulated Azure whose end asks Azure to deallocate it, as its own identity: its bill ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from deployer.realm_real import RealRealm
from deployer.realm_sandbox import SandboxRealm
from deployer.sandbox.client import Sandbox

from .self_deallocation_kit import SCRIPT, SERVICE, SUBSCRIPTION, VM, give_role, make, power, words

TIMER = "[Timer]\nOnCalendar=2020-01-01 00:00:00 UTC\nOnBootSec=0s\nUnit=end.service\n"


@pytest.fixture
def realm(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> SandboxRealm:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    return SandboxRealm(sandbox)


@pytest.fixture
def clients(realm: SandboxRealm) -> Iterator[Any]:
    """Azure's own clients for a machine with an identity, which is taken down at the end."""
    made = make(realm)
    assert realm.sandbox.settle()
    yield made
    made.resources.resource_groups.begin_delete("rg").result()


def end(realm: SandboxRealm) -> Path:
    """Gives the machine an end that has come; its console's log."""
    (machine,) = realm.sandbox.machines()
    root, where = Path(machine["root"]), realm.azure_management(None, VM)
    folder, units = root / "usr/local/lib/fedspan", root / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "deallocate.py").write_text(SCRIPT)
    (folder / "arm-ca.crt").write_bytes(where.ca or b"")
    units.mkdir(parents=True, exist_ok=True)
    (units / "end.service").write_text(SERVICE.format(words=words(where, 1)))
    (units / "end.timer").write_text(TIMER)
    return Path(machine["console"])


def test_with_the_role_its_end_is_the_end_of_its_bill(realm: SandboxRealm, clients: Any) -> None:
    give_role(clients)
    log = end(realm)
    until(lambda: power(clients) == "PowerState/deallocated", what=log.read_text())
    assert realm.sandbox.settle()
    (machine,) = realm.sandbox.machines()
    assert machine["state"] == "stopped"
    text = log.read_text()
    assert "deallocate.py: isolated: 1" in text
    assert "deallocate.py: answer: 202" in text
    # Turned on again, it is the same machine with the same identity, and its end is still over.
    clients.compute.virtual_machines.begin_start("rg", "vm").result()
    until(lambda: log.read_text().count("deallocate.py: answer: 202") == 2, what=log.read_text())


def test_without_the_role_it_powers_itself_off_all_the_same_and_is_billed_on(realm: SandboxRealm, clients: Any) -> None:
    log = end(realm)
    until(lambda: power(clients) == "PowerState/stopped", what=log.read_text())
    text = log.read_text()
    assert "HTTP Error 403" in text
    assert "deallocate.py: exit status 1" in text


def test_fewer_rights_for_azures_credentials_are_enforced_until_they_are_taken_back(
    realm: SandboxRealm, clients: Any
) -> None:
    role = {"Actions": ["Microsoft.Compute/*"], "NotActions": ["Microsoft.Compute/*/delete"]}
    realm.sandbox.enforce_role(SUBSCRIPTION, role)
    try:
        assert clients.compute.virtual_machines.get("rg", "vm").name == "vm"
        with pytest.raises(Exception, match="does not have authorization to perform action") as caught:
            clients.network.network_interfaces.get("rg", "nic")
        assert "Microsoft.Network/networkInterfaces/read" in str(caught.value)
    finally:
        realm.sandbox.enforce_role(SUBSCRIPTION, None)
    assert clients.network.network_interfaces.get("rg", "nic").name == "nic"


def test_the_real_clouds_machines_ask_azure_itself() -> None:
    where = RealRealm({}).azure_management(None, VM)
    assert (where.arm, where.metadata, where.ca) == ("https://management.azure.com", "http://169.254.169.254", None)
