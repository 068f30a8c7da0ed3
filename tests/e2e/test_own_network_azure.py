"""A site in a network that a hospital's subscription has already: used as it is, and left as it was."""

from __future__ import annotations

from typing import Any

import pytest
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from e2e_world import SPEC, World, arm, copy_of

pytestmark = pytest.mark.slow

GROUP, PLACE = "research", {"location": "westeurope"}


def made(world: World) -> dict[str, str]:
    """A resource group, a network with a subnet, and a security group that lets the hospital's own computers in."""
    ResourceManagementClient(**arm(world)).resource_groups.create_or_update(GROUP, {**PLACE, "tags": {"owner": "IT"}})
    network = NetworkManagementClient(**arm(world))
    ssh = {
        "priority": 200,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": f"{world.sandbox.my_address()}/32",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": str(world.sandbox.ssh_port),
    }
    rules = {"securityRules": [{"name": "ssh", "properties": ssh}]}
    wanted: dict[str, Any] = {**PLACE, "properties": rules}
    group = network.network_security_groups.begin_create_or_update(GROUP, "research-nsg", wanted).result()
    wanted = {**PLACE, "properties": {"addressSpace": {"addressPrefixes": ["10.99.0.0/16"]}}}
    network.virtual_networks.begin_create_or_update(GROUP, "research-net", wanted).result()
    wanted = {"properties": {"addressPrefix": "10.99.1.0/24", "networkSecurityGroup": {"id": group.id}}}
    subnet = network.subnets.begin_create_or_update(GROUP, "research-net", "machines", wanted).result()
    return {"subnet": str(subnet.id), "security_group": str(group.id)}


def theirs(world: World) -> list[dict[str, Any]]:
    """What is the hospital's own, as ARM tells it."""
    network = NetworkManagementClient(**arm(world))
    found = [
        network.virtual_networks.get(GROUP, "research-net"),
        network.network_security_groups.get(GROUP, "research-nsg"),
    ]
    return [without_etags(one.as_dict()) for one in found]


def without_etags(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: without_etags(value) for name, value in document.items() if name != "etag"}
    return [without_etags(value) for value in document] if isinstance(document, list) else document


def test_it_is_used_as_it_is_and_left_as_it_was(world: World) -> None:
    ids = made(world)
    before, there = theirs(world), world.inventory()
    site = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5", "network": ids}
    world.write(copy_of(SPEC, sites={"site-1": site}))
    world.run("provision").ok()
    (part,) = [one for one in world.json("plan").ok().last["participants"] if one["name"] == "site-1"]
    kinds = {step["type"].rpartition(":")[2] for step in part["steps"]}
    assert "VirtualMachine" in kinds
    assert not kinds & {"VirtualNetwork", "Subnet", "NetworkSecurityGroup", "SecurityRule"}
    assert world.json("up", "--yes").ok().last["registered"] == ["site-1"]
    network = NetworkManagementClient(**arm(world))
    assert network.subnets.get(GROUP, "research-net", "machines").properties.ip_configurations, "the machine is in it"
    assert world.run("ssh", "site-1", "--", "echo", "inside").ok().out.strip() == "inside"
    assert world.json("up", "--yes").ok().last["nothing_changed"] is True
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == there
    assert theirs(world) == before
