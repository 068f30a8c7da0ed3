"""A machine in the emulated Azure whose end asks Azure to deallocate it, as its own identity: its bill ends with it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from waiting import until

from deployer.realm_real import RealRealm
from deployer.realm_sandbox import SandboxRealm
from deployer.sandbox.client import Sandbox

PUBLIC = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
SUBSCRIPTION = "5b1f0000-0000-4000-8000-000000000001"
POWER_ROLE = "40c5ff49-9181-41f8-ae61-143b0e78555e"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
VM = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm"
REGION = "westeurope"

# As short as can be: what the machine is told, asked as Azure wants it asked.
SCRIPT = """\
import json, ssl, sys, urllib.request
vm, arm, metadata, ca = sys.argv[2::2]
print("isolated:", sys.flags.isolated)
query = "api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
ask = urllib.request.Request(f"{metadata}/metadata/identity/oauth2/token?{query}", headers={"Metadata": "true"})
token = json.load(urllib.request.urlopen(ask))["access_token"]
url = f"{arm}{vm}/deallocate?api-version=2024-11-01"
ask = urllib.request.Request(url, data=b"", headers={"Authorization": f"Bearer {token}"})
print("answer:", urllib.request.urlopen(ask, context=ssl.create_default_context(cafile=ca)).status)
"""
SERVICE = """\
[Service]
Type=oneshot
ExecCondition=/bin/sh -c '[ $$(date +%%s) -ge 1577836800 ]'
ExecStart=-/usr/bin/python3 -I /usr/local/lib/fedspan/deallocate.py {words}
ExecStart=/usr/bin/systemctl --no-block poweroff
"""
TIMER = "[Timer]\nOnCalendar=2020-01-01 00:00:00 UTC\nOnBootSec=0s\nUnit=end.service\n"


@pytest.fixture
def realm(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> SandboxRealm:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    return SandboxRealm(sandbox)


@pytest.fixture
def clients(realm: SandboxRealm) -> Iterator[Any]:
    """Azure's own clients for a machine with an identity, which is taken down at the end."""
    where = SimpleNamespace(name="site-1", region=REGION, subscription=SUBSCRIPTION)
    made = realm.clients("azure", where, realm.access("azure", where))
    made.resources.resource_groups.create_or_update("rg", {"location": REGION})
    made.network.virtual_networks.begin_create_or_update(
        "rg",
        "vnet",
        {
            "location": REGION,
            "properties": {
                "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
                "subnets": [{"name": "subnet", "properties": {"addressPrefix": "10.0.0.0/24"}}],
            },
        },
    ).result()
    subnet = {"id": f"{GROUP}/providers/Microsoft.Network/virtualNetworks/vnet/subnets/subnet"}
    nic = made.network.network_interfaces.begin_create_or_update(
        "rg",
        "nic",
        {
            "location": REGION,
            "properties": {"ipConfigurations": [{"name": "primary", "properties": {"subnet": subnet}}]},
        },
    ).result()
    key = {"keyData": PUBLIC, "path": "/home/fedspan/.ssh/authorized_keys"}
    image = {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest"}
    made.compute.virtual_machines.begin_create_or_update(
        "rg",
        "vm",
        {
            "location": REGION,
            "identity": {"type": "SystemAssigned"},
            "properties": {
                "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
                "networkProfile": {"networkInterfaces": [{"id": nic.id, "properties": {"primary": True}}]},
                "storageProfile": {"imageReference": image, "osDisk": {"createOption": "FromImage"}},
                "osProfile": {
                    "computerName": "site-1",
                    "adminUsername": "fedspan",
                    "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
                },
            },
        },
    ).result()
    assert realm.sandbox.settle()
    yield made
    made.resources.resource_groups.begin_delete("rg").result()


def power(clients: Any) -> str:
    statuses = clients.compute.virtual_machines.instance_view("rg", "vm").statuses
    return str(next(one.code for one in statuses if one.code.startswith("PowerState/")))


def end(realm: SandboxRealm) -> Path:
    """Gives the machine an end that has come; its console's log."""
    (machine,) = realm.sandbox.machines()
    root, where = Path(machine["root"]), realm.azure_management(None, VM)
    folder, units = root / "usr/local/lib/fedspan", root / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "deallocate.py").write_text(SCRIPT)
    (folder / "arm-ca.crt").write_bytes(where.ca or b"")
    words = f"--vm {VM} --arm {where.arm} --metadata {where.metadata} --ca /usr/local/lib/fedspan/arm-ca.crt"
    units.mkdir(parents=True, exist_ok=True)
    (units / "end.service").write_text(SERVICE.format(words=words))
    (units / "end.timer").write_text(TIMER)
    return Path(machine["console"])


def give_role(clients: Any) -> None:
    principal = clients.compute.virtual_machines.get("rg", "vm").identity.principal_id
    role = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{POWER_ROLE}"
    body = {"properties": {"principalId": principal, "roleDefinitionId": role, "principalType": "ServicePrincipal"}}
    path = f"{VM}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    clients.resources.resources.begin_create_or_update_by_id(path, body, api_version="2022-04-01").result()


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
