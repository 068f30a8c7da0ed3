"""A machine with an identity in a sandbox's Azure, and the unit by which it ends its own bill."""

from __future__ import annotations

import base64
import uuid
from types import SimpleNamespace
from typing import Any

import asyncssh

from deployer.realm import Management
from deployer.realm_sandbox import SandboxRealm

PUBLIC = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
SUBSCRIPTION = "5b1f0000-0000-4000-8000-000000000001"
POWER_ROLE = "40c5ff49-9181-41f8-ae61-143b0e78555e"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
VM = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm"
REGION = "westeurope"

# As short as can be: what the machine is told, asked as Azure wants it asked.
SCRIPT = """\
import json, ssl, sys, time, urllib.request
vm, arm, metadata, ca, tries = sys.argv[2::2]
print("isolated:", sys.flags.isolated)
def ask(url, headers, data=None, context=None):
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), context=context, timeout=20)
query = "api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
for left in reversed(range(int(tries))):
    try:
        given = ask(f"{metadata}/metadata/identity/oauth2/token?{query}", {"Metadata": "true"})
        bearer = {"Authorization": f"Bearer {json.load(given)['access_token']}"}
        url = f"{arm}{vm}/deallocate?api-version=2024-11-01"
        answer = ask(url, bearer, b"", ssl.create_default_context(cafile=ca))
        print("answer:", answer.status)
        break
    except OSError:
        if not left:
            raise
        time.sleep(1)
"""
SERVICE = """\
[Service]
Type=oneshot
ExecCondition=/bin/sh -c '[ $$(date +%%s) -ge 1577836800 ]'
ExecStart=-/usr/bin/python3 -I /usr/local/lib/fedspan/deallocate.py {words}
ExecStart=/usr/bin/systemctl --no-block poweroff
"""


def words(where: Management, tries: int) -> str:
    """The command's arguments."""
    ca = "/usr/local/lib/fedspan/arm-ca.crt"
    return f"--vm {VM} --arm {where.arm} --metadata {where.metadata} --ca {ca} --tries {tries}"


def make(realm: SandboxRealm, user_data: str = "") -> Any:
    """Makes the machine; Azure's own clients."""
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
                    **({"customData": base64.b64encode(user_data.encode()).decode()} if user_data else {}),
                    "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
                },
            },
        },
    ).result()
    return made


def power(clients: Any) -> str:
    statuses = clients.compute.virtual_machines.instance_view("rg", "vm").statuses
    return str(next(one.code for one in statuses if one.code.startswith("PowerState/")))


def give_role(clients: Any) -> None:
    principal = clients.compute.virtual_machines.get("rg", "vm").identity.principal_id
    role = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{POWER_ROLE}"
    body = {"properties": {"principalId": principal, "roleDefinitionId": role, "principalType": "ServicePrincipal"}}
    path = f"{VM}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    clients.resources.resources.begin_create_or_update_by_id(path, body, api_version="2022-04-01").result()
