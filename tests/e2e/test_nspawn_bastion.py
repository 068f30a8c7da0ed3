"""A site with a private address only, behind a hospital's bastion (a real sshd) and its NAT gateway."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of, ec2
from nspawn_world import on, run_job, states, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Hospital:
    """What the hospital's account has before anything is deployed."""

    network: dict[str, Any]
    bastion: str
    inside: str
    nat: str


def routed(cloud: Any, vpc: str, cidr: str, **way: str) -> str:
    """A subnet with a default route."""
    subnet = cloud.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone="eu-central-1a")["Subnet"]["SubnetId"]
    table = cloud.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    cloud.create_route(RouteTableId=table, DestinationCidrBlock=ANYWHERE, **way)
    cloud.associate_route_table(RouteTableId=table, SubnetId=subnet)
    return str(subnet)


def lets_in(cloud: Any, vpc: str, name: str, cidr: str) -> str:
    """A security group that lets SSH in from a network."""
    group = cloud.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
    cloud.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=cidr)
    return str(group)


def hospital(world: World) -> Hospital:
    """A network with a public and a private subnet, a bastion in the one, and a NAT gateway for the other."""
    cloud = ec2(world)
    vpc = cloud.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    gateway = cloud.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    cloud.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    public = routed(cloud, vpc, "10.99.1.0/24", GatewayId=gateway)
    address = cloud.allocate_address(Domain="vpc")
    nat = cloud.create_nat_gateway(SubnetId=public, AllocationId=address["AllocationId"])["NatGateway"]["NatGatewayId"]
    private = routed(cloud, vpc, "10.99.2.0/24", NatGatewayId=nat)
    keys = world.folder / "home" / ".ssh"
    keys.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id_ed25519")], check=True)
    cloud.import_key_pair(KeyName="ana", PublicKeyMaterial=(keys / "id_ed25519.pub").read_bytes())
    image = cloud.describe_images(Filters=[{"Name": "name", "Values": ["ubuntu/images/*24.04-amd64*"]}])["Images"][0]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": public,
        "Groups": [lets_in(cloud, vpc, "bastion", f"{world.sandbox.my_address()}/32")],
        "AssociatePublicIpAddress": True,
    }
    made = cloud.run_instances(
        ImageId=image["ImageId"],
        InstanceType="t3.micro",
        KeyName="ana",
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[interface],
    )["Instances"][0]["InstanceId"]
    seen = until("the bastion", lambda: bastion(world, made))
    (keys / "known_hosts").write_text(f"{seen['public_ip']} {seen['host_key']}\n")
    group = lets_in(cloud, vpc, "machines", "10.99.1.0/24")
    return Hospital(
        {"vpc": vpc, "subnet": private, "security_group": group, "private": True},
        seen["public_ip"],
        seen["private_ip"],
        address["PublicIp"],
    )


def bastion(world: World, id: str) -> dict[str, Any] | None:
    """The machine, once its sshd answers."""
    found = next((one for one in world.sandbox.machines() if one["id"] == id), None)
    return found if found and found.get("host_key") and answers(found["public_ip"]) else None


def answers(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=2).close()
    except OSError:
        return False
    return True


def test_it_is_deployed_works_and_is_taken_down_by_way_of_the_bastion(nspawn: World, tmp_path: Path) -> None:
    world = nspawn
    theirs = hospital(world)
    there = world.inventory()
    place = {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}
    site = {**place, "zone": "eu-central-1a", "network": theirs.network, "jump": f"ubuntu@{theirs.bastion}"}
    world.write(copy_of(SPEC, server=place, sites={"site-1": site}))
    world.run("provision").ok()
    world.run("allow", "site-1", f"{theirs.nat}/32", "--yes").ok()
    assert world.json("up", "--yes").ok().last["registered"] == ["site-1"]
    machine = next(one for one in world.sandbox.machines() if one["name"] == "site-1")
    assert machine["public_ip"] is None
    assert machine["private_ip"].startswith("10.99.2.")
    assert not answers(theirs.nat), "it is a way out, and no way in"
    # from the bastion comes who logs in, from the NAT gateway who registers
    assert on(world, "site-1", "sh", "-c", "echo $SSH_CONNECTION").split()[0] == theirs.inside
    connected = on(world, "server", "ss", "-Htn", "state", "established", "sport", "=", ":8002")
    assert theirs.nat in connected
    run_job(world, tmp_path)
    assert states(world) == [("quick", "FINISHED")]
    assert world.json("up", "--yes").ok().last["nothing_changed"] is True
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == there
    assert answers(theirs.bastion)
