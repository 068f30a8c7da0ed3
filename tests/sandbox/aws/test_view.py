"""What the machines' driver and `down` are told: every machine and every resource, over accounts and regions."""

from __future__ import annotations

import threading
from typing import Any

from deployer.sandbox.model import Rule

from .conftest import Account, public_key


def test_a_machine_is_told_with_all_that_its_driver_needs(account: Account) -> None:
    net, ec2, key = account.network(), account.ec2, public_key()
    address = account.address(net["eni"])
    ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.encode())
    rules = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.4/32"}]},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": net["group"]}]},
    ]
    ec2.authorize_security_group_ingress(GroupId=net["group"], IpPermissions=rules)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fedspan:participant", "Value": "site-1"}]}]
    machine = account.run(
        net["eni"], UserData="#cloud-config\n# ü\n", KeyName="key", TagSpecifications=tags, InstanceType="g4dn.xlarge"
    )
    volume = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=8)["VolumeId"]
    ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    (spec,) = account.machines()
    assert spec.id == machine
    assert (spec.cloud, spec.account, spec.region, spec.zone) == ("aws", account.id, "eu-central-1", "eu-central-1a")
    assert (spec.size, spec.running) == ("g4dn.xlarge", True)
    assert spec.user_data == "#cloud-config\n# ü\n"
    assert spec.login_keys == (("ubuntu", key),)
    assert spec.public_ip == address["ip"]
    assert spec.private_ip == "10.9.1.4"
    assert spec.ingress == (Rule(22, 22, "tcp", "198.51.100.4/32"), Rule(0, 65535, "-1", "10.9.1.4/32"))
    assert spec.volumes == ((volume, "/dev/sdf"),)  # its own disk is not listed: it dies with it
    assert spec.participant == "site-1"


def test_a_machine_stops_starts_reboots_and_ends(account: Account) -> None:
    machine, ec2 = account.run(account.network()["eni"]), account.ec2
    ec2.stop_instances(InstanceIds=[machine])
    assert [m.running for m in account.machines()] == [False]
    ec2.start_instances(InstanceIds=[machine])
    ec2.reboot_instances(InstanceIds=[machine])
    assert [(m.running, m.boots) for m in account.machines()] == [(True, 2)]  # a start and a reboot
    ec2.terminate_instances(InstanceIds=[machine])
    assert account.machines() == []


def test_a_public_address_without_a_route_reaches_nobody(account: Account) -> None:
    net = account.network()
    account.address(net["eni"])
    account.run(net["eni"])
    assert account.machines()[0].public_ip
    route: dict[str, Any] = {"RouteTableId": net["table"], "DestinationCidrBlock": "0.0.0.0/0"}
    account.ec2.delete_route(**route)
    assert account.machines()[0].public_ip is None
    account.ec2.create_route(**route, GatewayId=net["gateway"])
    assert account.machines()[0].public_ip


def test_a_default_network_is_no_ones_resource(account: Account) -> None:
    assert len(account.ec2.describe_subnets()["Subnets"]) == 3
    account.client("ec2", "us-east-1").describe_vpcs()
    assert account.inventory() == []


def test_the_inventory_names_everything_by_kind_id_and_tags(account: Account) -> None:
    net = account.network()
    account.address(net["eni"])
    account.run(net["eni"])
    account.ec2.import_key_pair(KeyName="key", PublicKeyMaterial=public_key().encode())
    west = account.client("ec2", "eu-west-1").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    account.ec2.create_tags(Resources=[net["vpc"]], Tags=[{"Key": "Name", "Value": "named"}])
    found = account.inventory()
    assert [item.kind for item in found] == [
        "ec2:elastic-ip",
        "ec2:instance",
        "ec2:internet-gateway",
        "ec2:key-pair",
        "ec2:network-interface",
        "ec2:route-table",
        "ec2:security-group",
        "ec2:subnet",
        "ec2:volume",
        "ec2:vpc",
        "ec2:vpc",
    ]
    by_id = {item.id: item for item in found}
    assert (by_id[net["vpc"]].name, dict(by_id[net["vpc"]].tags)) == ("named", {"Name": "named"})
    assert by_id[west].region == "eu-west-1"
    assert {item.account for item in found} == {account.id}


def test_a_public_address_that_ec2_gives_by_itself_lasts_until_the_stop(account: Account) -> None:
    net, ec2, pool = account.network(), account.ec2, account.cloud.pool
    before = pool.owned()
    ec2.modify_subnet_attribute(SubnetId=net["subnet"], MapPublicIpOnLaunch={"Value": True})
    machine = account.run(SubnetId=net["subnet"])
    first = account.machines()[0].public_ip
    assert first in set(pool.owned()) - set(before)
    ec2.stop_instances(InstanceIds=[machine])
    assert account.machines()[0].public_ip is None
    assert pool.owned() == before
    ec2.start_instances(InstanceIds=[machine])
    assert account.machines()[0].public_ip not in (None, first)
    ec2.terminate_instances(InstanceIds=[machine])
    assert pool.owned() == before


def test_the_view_is_taken_while_others_change_the_cloud(account: Account) -> None:
    net = account.network()
    stop = threading.Event()
    trouble: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                account.machines()
                account.inventory()
        except BaseException as error:
            trouble.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(15):
            machine = account.run(SubnetId=net["subnet"])
            account.ec2.create_tags(Resources=[machine], Tags=[{"Key": "k", "Value": "v"}])
            account.ec2.terminate_instances(InstanceIds=[machine])
    finally:
        stop.set()
        for looker in lookers:
            looker.join(60)
    assert trouble == []
