"""SSH closed between operations, a restricted way out, and a network of the account's own, in the emulated clouds."""

from __future__ import annotations

import pytest
from e2e_world import SPEC, World, copy_of, ec2

pytestmark = pytest.mark.slow


def own_network(world: World) -> dict[str, str]:
    """What a hospital's account has already: a network with a way out, and a group that lets its own bastion in."""
    cloud = ec2(world)
    vpc = cloud.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    gateway = cloud.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    cloud.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = cloud.create_subnet(VpcId=vpc, CidrBlock="10.99.1.0/24", AvailabilityZone="eu-central-1a")
    table = cloud.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    cloud.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    cloud.associate_route_table(RouteTableId=table, SubnetId=subnet["Subnet"]["SubnetId"])
    group = cloud.create_security_group(GroupName="research", Description="research", VpcId=vpc)["GroupId"]
    mine = f"{world.sandbox.my_address()}/32"
    cloud.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=world.sandbox.ssh_port, ToPort=world.sandbox.ssh_port, CidrIp=mine
    )
    return {"vpc": vpc, "subnet": subnet["Subnet"]["SubnetId"], "security_group": group}


@pytest.fixture(scope="module")
def network(world: World) -> dict[str, str]:
    return own_network(world)


@pytest.fixture(scope="module")
def up(world: World, network: dict[str, str]) -> World:
    """Server and site-1 closed and restricted; site-2 in the account's own network."""
    spec = copy_of(SPEC)
    spec["defaults"]["tags"] = {"cost-centre": "4711"}
    closed = {"ssh_access": "during-operations", "egress": "restricted"}
    spec["server"].update(closed)
    spec["sites"]["site-1"].update(closed)
    spec["sites"]["site-2"] = {
        "target": "aws",
        "region": "eu-central-1",
        "zone": "eu-central-1a",
        "size": "m7i.large",
        "ssh_access": "never",
        "network": network,
    }
    world.write(spec)
    told = world.json("up", "--yes").ok()
    assert told.last["registered"] == ["site-1", "site-2"]
    return world


def doors(world: World) -> list[str]:
    """Rules that let SSH in and are not of the stacks."""
    return [entry for entry in world.inventory() if entry.endswith("door")]


def ssh_rules(world: World) -> list[str]:
    """Networks that may reach the SSH port, by machine."""
    port = world.sandbox.ssh_port
    cloud = ec2(world)
    rules = cloud.describe_security_group_rules()["SecurityGroupRules"]
    return [rule["GroupId"] for rule in rules if not rule["IsEgress"] and rule["FromPort"] == port]


def test_after_up_nobody_can_log_in_until_a_command_does(up: World, network: dict[str, str]) -> None:
    assert ssh_rules(up) == [network["security_group"]]
    assert doors(up) == []
    told = {line["name"]: line for line in up.json("status").ok().last["participants"]}
    assert "closed between operations" in up.run("status").ok().out
    assert told["site-1"]["phase"] == "registered"
    assert up.run("ssh", "site-1", "--", "echo", "inside").ok().out.strip() == "inside"
    assert up.run("ssh", "server", "--", "echo", "inside").ok().out.strip() == "inside"
    assert ssh_rules(up) == [network["security_group"]]
    assert doors(up) == []


def test_a_second_up_changes_nothing_and_closes_again(up: World, network: dict[str, str]) -> None:
    assert up.json("up", "--yes").ok().last["nothing_changed"] is True
    assert ssh_rules(up) == [network["security_group"]]
    assert doors(up) == []


def test_restricted_machines_may_reach_what_they_need_only(up: World) -> None:
    cloud = ec2(up)
    groups = cloud.describe_security_groups(Filters=[{"Name": "tag:fedspan:participant", "Values": ["site-1"]}])
    (group,) = groups["SecurityGroups"]
    rules = cloud.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}])
    out = {(r["IpProtocol"], r["CidrIpv4"], r["FromPort"]) for r in rules["SecurityGroupRules"] if r["IsEgress"]}
    address, _, port = up.endpoint("site-1").rpartition(":")
    assert ("tcp", f"{address}/32", int(port)) in out
    assert not any(protocol == "-1" for protocol, _, _ in out)
    assert {number for _, network, number in out if network == "0.0.0.0/0"} == {80, 443}
    assert {"Key": "cost-centre", "Value": "4711"} in group["Tags"]


def test_the_accounts_own_network_is_as_it_was_when_all_is_down(up: World, network: dict[str, str]) -> None:
    plan = up.json("plan").ok().last
    (site,) = [part for part in plan["participants"] if part["name"] == "site-2"]
    assert site["steps"] == []
    assert "0 left" in up.run("down", "--yes").ok().out
    cloud = ec2(up)
    assert cloud.describe_subnets(SubnetIds=[network["subnet"]])["Subnets"]
    assert cloud.describe_security_groups(GroupIds=[network["security_group"]])["SecurityGroups"]
    left = {item.kind for item in up.sandbox.inventory()}
    theirs = {"ec2:vpc", "ec2:subnet", "ec2:internet-gateway", "ec2:route-table", "ec2:security-group"}
    assert left == theirs, up.inventory()
