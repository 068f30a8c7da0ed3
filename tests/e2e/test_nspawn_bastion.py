"""Sites behind a real sshd: in a cloud with a private address only and a NAT gateway, and on premises."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of, ec2
from nspawn_world import PATIENCE_S, on, run_job, states
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Hospital:
    """What the hospital's account has before anything is deployed."""

    network: dict[str, Any]
    bastion: str
    inside: str
    nat: str


def operators_key(world: World) -> str:
    """Makes the operator's own SSH key; its public half."""
    path = world.folder / "home" / ".ssh" / "id_ed25519"
    path.parent.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


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
    cloud.import_key_pair(KeyName="ana", PublicKeyMaterial=operators_key(world).encode())
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
    seen = until(lambda: bastion(world, made), PATIENCE_S, "the bastion")
    (world.folder / "home" / ".ssh" / "known_hosts").write_text(f"{seen['public_ip']} {seen['host_key']}\n")
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


def test_it_is_deployed_works_and_is_taken_down_by_way_of_the_bastion(fresh_nspawn: World, tmp_path: Path) -> None:
    world = fresh_nspawn
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


def test_a_machine_on_premises_is_reached_by_way_of_a_jump_host(fresh_nspawn: World, tmp_path: Path) -> None:
    world = fresh_nspawn
    public = operators_key(world)
    doors = {name: world.sandbox.host(name, "ana", public, 22) for name in ("gate", "ward")}
    keys = {name: until(lambda name=name: shown_key(world, name), PATIENCE_S, f"sshd of {name}") for name in doors}
    known = "".join(f"{doors[name]} {keys[name]}\n" for name in doors)
    (world.folder / "home" / ".ssh" / "known_hosts").write_text(known)
    place = {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}
    site = {"target": "host", "host": doors["ward"], "user": "ana", "jump": f"ana@{doors['gate']}"}
    world.write(copy_of(SPEC, server=place, sites={"site-1": site}))
    assert world.json("up", "--yes").ok().last["registered"] == ["site-1"]
    assert on(world, "site-1", "sh", "-c", "echo $SSH_CONNECTION").split()[0] == doors["gate"]
    run_job(world, tmp_path)
    assert states(world) == [("quick", "FINISHED")]
    assert "0 left" in world.run("down", "--yes").ok().out
    assert on_host(world, doors["ward"], "ls /opt/fedspan 2>/dev/null | wc -l") == "0"


def shown_key(world: World, name: str) -> str:
    found = next((one for one in world.sandbox.machines() if one["name"] == name), None)
    return str(found["host_key"]) if found and found.get("host_key") and answers(found["public_ip"]) else ""


def on_host(world: World, address: str, command: str) -> str:
    """What a command says on a machine that fedspan has left."""
    folder = world.folder / "home" / ".ssh"
    options = [f"UserKnownHostsFile={folder / 'known_hosts'}", "BatchMode=yes", f"IdentityFile={folder / 'id_ed25519'}"]
    words = [word for option in options for word in ("-o", option)]
    done = subprocess.run(["ssh", *words, f"ana@{address}", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
