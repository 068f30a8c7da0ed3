"""What changes in place, and what of a participant stays the same then."""

from __future__ import annotations

import base64
from typing import Any

import grpc
import pytest

from .aws_engine import CheckFailed, Engine
from .aws_programs import (
    ADDRESS,
    ADDRESS_ASSOCIATION,
    ATTACHMENT,
    GATEWAY,
    GROUP,
    INGRESS,
    INTERFACE,
    MACHINE,
    TABLE,
    VOLUME,
    VPC,
    ZONE,
    participant,
    secret,
)
from .conftest import Account


def test_another_size_is_a_stop_and_a_start_of_the_same_machine(engine: Engine, account: Account) -> None:
    made = participant(engine)
    vm, inputs = made["vm"]
    engine.update(vm, **{**inputs, "instanceType": "m7i.xlarge"})
    machine = account.machines()[0]
    assert (machine.id, machine.size, machine.running) == (vm.id, "m7i.xlarge", True)
    assert machine.public_ip == made["address"][0]["publicIp"]
    assert vm["instanceType"] == "m7i.xlarge"


def test_a_stopped_machine_stays_stopped_when_its_size_changes(engine: Engine, account: Account) -> None:
    vm, inputs = participant(engine)["vm"]
    account.ec2.stop_instances(InstanceIds=[vm.id])
    engine.update(vm, **{**inputs, "instanceType": "m7i.xlarge"})
    assert [(m.size, m.running) for m in account.machines()] == [("m7i.xlarge", False)]


def test_user_data_changes_in_place_unless_asked_otherwise(engine: Engine, account: Account) -> None:
    vm, inputs = participant(engine)["vm"]
    engine.update(vm, **{**inputs, "userData": secret("#cloud-config\n# new\n")})
    assert account.machines()[0].user_data == "#cloud-config\n# new\n"
    assert vm.outputs["userData"] == secret("#cloud-config\n# new\n")
    encoded = base64.b64encode(b"#cloud-config\n# 3\n").decode()
    engine.update(vm, **{**inputs, "userData": None, "userDataBase64": encoded})
    assert account.machines()[0].user_data == "#cloud-config\n# 3\n"
    assert vm["userDataBase64"] == encoded


def test_the_rest_of_a_machine_changes_while_it_runs(engine: Engine, account: Account) -> None:
    vm, inputs = participant(engine)["vm"]
    disk = {**inputs["rootBlockDevice"], "volumeSize": 64, "deleteOnTermination": False, "tags": {"Name": "disk"}}
    options = {**inputs["metadataOptions"], "httpPutResponseHopLimit": 2}
    change = {
        "rootBlockDevice": disk,
        "metadataOptions": options,
        "instanceInitiatedShutdownBehavior": "terminate",
        "disableApiTermination": True,
        "sourceDestCheck": False,
        "tags": {"Name": "vm"},
    }
    engine.update(vm, **{**inputs, **change})
    assert vm["rootBlockDevice"]["volumeSize"] == 64
    assert vm["rootBlockDevice"]["deleteOnTermination"] is False
    assert vm["rootBlockDevice"]["tags"] == {"Name": "disk"}
    assert vm["metadataOptions"]["httpPutResponseHopLimit"] == 2
    assert vm["metadataOptions"]["httpTokens"] == "required"
    assert vm["instanceInitiatedShutdownBehavior"] == "terminate"
    assert vm["sourceDestCheck"] is False
    assert vm["tags"] == {"Name": "vm"}
    with pytest.raises(grpc.RpcError, match="OperationNotPermitted"):
        engine.delete(vm)
    engine.update(vm, **{**inputs, **change, "disableApiTermination": False})
    engine.delete(vm)


def test_a_replaced_machine_keeps_interface_address_and_volume(engine: Engine, account: Account) -> None:
    made = participant(engine)
    (vm, inputs), (attachment, attached) = made["vm"], made["attachment"]
    address, first = made["address"][0]["publicIp"], vm.id
    engine.delete(attachment)
    engine.delete(vm)
    second = engine.create(MACHINE, "vm", **{**inputs, "userData": "#cloud-config\n# again\n"})
    engine.create(ATTACHMENT, "attachment", **{**attached, "instanceId": second.id})
    machine = account.machines()[0]
    assert second.id != first
    assert (machine.id, machine.public_ip) == (second.id, address)
    assert machine.volumes == ((made["volume"][0].id, "/dev/sdf"),)


def test_a_machine_made_before_the_old_one_is_gone_is_refused(engine: Engine) -> None:
    _, inputs = participant(engine)["vm"]
    with pytest.raises(grpc.RpcError, match=r"api error InvalidNetworkInterface\.InUse: Interface: \[eni-"):
        engine.create(MACHINE, "second", **inputs)


def test_rules_change_in_place(engine: Engine, account: Account) -> None:
    made = participant(engine)
    rule, inputs = made["ssh"]
    before = rule.id
    engine.update(rule, **{**inputs, "cidrIpv4": "203.0.113.7/32", "toPort": 23, "description": "moved"})
    assert (rule.id, rule["cidrIpv4"], rule["toPort"], rule["description"]) == (before, "203.0.113.7/32", 23, "moved")
    assert [(r.cidr, r.port_from, r.port_to) for r in account.machines()[0].ingress] == [("203.0.113.7/32", 22, 23)]
    everything, given = made["egress"]
    engine.update(everything, **{**given, "cidrIpv4": "10.0.0.0/8"})
    assert everything["cidrIpv4"] == "10.0.0.0/8"


def test_a_rule_with_a_group_as_its_source(engine: Engine, account: Account) -> None:
    made = participant(engine)
    group = made["group"][0].id
    given: dict[str, Any] = {"securityGroupId": group, "ipProtocol": "tcp", "fromPort": 80, "toPort": 80}
    rule = engine.create(INGRESS, "members", **given, referencedSecurityGroupId=group)
    assert rule["referencedSecurityGroupId"] == group
    assert ("10.8.1.4/32", 80) in [(r.cidr, r.port_from) for r in account.machines()[0].ingress]
    with pytest.raises(CheckFailed, match="exactly one of cidrIpv4"):
        engine.create(INGRESS, "two", **given, cidrIpv4="1.2.3.4/32", cidrIpv6="::/0")


def test_inline_rules_of_a_group(engine: Engine, account: Account) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.8.0.0/16")
    web = {"protocol": "tcp", "fromPort": 443, "toPort": 443, "cidrBlocks": ["10.0.0.0/8", "192.0.2.0/24"]}
    out = {"protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}
    given = {"vpcId": vpc.id, "description": "inline", "ingress": [web], "egress": [out]}
    group = engine.create(GROUP, "inline", **given)
    live = engine.read(group)
    assert live is not None
    assert live.inputs == group.inputs
    engine.update(group, **{**given, "ingress": [{**web, "cidrBlocks": ["10.0.0.0/8"]}]})
    found = account.ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
    assert [r["CidrIp"] for p in found["IpPermissions"] for r in p["IpRanges"]] == ["10.0.0.0/8"]
    assert len(found["IpPermissionsEgress"]) == 1


def test_a_new_group_lets_nothing_out(engine: Engine, account: Account) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.8.0.0/16")
    group = engine.create(GROUP, "closed", vpcId=vpc.id)
    assert group["description"] == "Managed by Pulumi"
    found = account.ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
    assert found["IpPermissionsEgress"] == []


def test_a_table_with_its_routes_inline(engine: Engine) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.8.0.0/16")
    gateway = engine.create(GATEWAY, "gateway", vpcId=vpc.id)
    route = {"cidrBlock": "0.0.0.0/0", "gatewayId": gateway.id}
    table = engine.create(TABLE, "table", vpcId=vpc.id, routes=[route])
    assert table["routes"] == [route]
    engine.update(table, vpcId=vpc.id, routes=[{**route, "cidrBlock": "192.0.2.0/24"}])
    assert [item["cidrBlock"] for item in table["routes"]] == ["192.0.2.0/24"]


def test_an_association_moves_to_another_table(engine: Engine) -> None:
    made = participant(engine)
    association, inputs = made["association"]
    second = engine.create(TABLE, "second", vpcId=made["vpc"][0].id)
    engine.update(association, **{**inputs, "routeTableId": second.id})
    live = engine.read(association)
    assert live is not None
    assert live["routeTableId"] == second.id
    engine.update(association, **inputs)
    engine.destroy()


def test_an_address_moves_to_another_interface_and_off_it(engine: Engine, account: Account) -> None:
    made = participant(engine)
    address, inputs = made["address"]
    other = engine.create(INTERFACE, "other", subnetId=made["subnet"][0].id)
    engine.update(address, **{**inputs, "networkInterface": other.id})
    assert address["networkInterface"] == other.id
    assert account.machines()[0].public_ip is None
    engine.update(address, domain="vpc")
    assert address["associationId"] == ""
    engine.update(address, **inputs)
    assert account.machines()[0].public_ip == address["publicIp"]
    engine.delete(other)
    engine.made.append(address) if address not in engine.made else None


def test_an_address_associated_by_a_resource_of_its_own(engine: Engine, account: Account) -> None:
    made = participant(engine)
    engine.delete(made["address"][0])
    address = engine.create(ADDRESS, "plain", domain="vpc")
    joined = engine.create(
        ADDRESS_ASSOCIATION, "joined", allocationId=address.id, networkInterfaceId=made["interface"][0].id
    )
    assert account.machines()[0].public_ip == address["publicIp"]
    assert joined.id.startswith("eipassoc-")
    live = engine.read(address)
    assert live is not None
    assert live.inputs == address.inputs
    engine.destroy()
    assert account.inventory() == []


def test_a_volume_grows_and_does_not_shrink(engine: Engine) -> None:
    given = {"availabilityZone": ZONE, "size": 20, "type": "gp3"}
    volume = engine.create(VOLUME, "volume", **given)
    assert (volume["iops"], volume["throughput"]) == (3000, 125)
    engine.update(volume, **{**given, "size": 40})
    assert volume["size"] == 40
    with pytest.raises(grpc.RpcError, match="New size cannot be smaller than existing size"):
        engine.update(volume, **given)


def test_attaching_what_is_attached_already_is_done(engine: Engine) -> None:
    _, inputs = participant(engine)["attachment"]
    again = engine.create(ATTACHMENT, "again", **inputs)
    assert again["volumeId"] == inputs["volumeId"]


def test_detaching_stops_the_machine_first_when_asked(engine: Engine, account: Account) -> None:
    made = participant(engine)
    attachment, inputs = made["attachment"]
    engine.update(attachment, **{**inputs, "stopInstanceBeforeDetaching": True})
    engine.delete(attachment)
    assert [(m.running, m.volumes) for m in account.machines()] == [(False, ())]


def test_a_machine_in_a_subnet_without_an_interface_of_its_own(engine: Engine, account: Account) -> None:
    made = participant(engine)
    engine.delete(made["attachment"][0])
    engine.delete(made["vm"][0])
    plain_one = {
        "ami": made["vm"][1]["ami"],
        "instanceType": "m7i.large",
        "subnetId": made["subnet"][0].id,
        "vpcSecurityGroupIds": [made["group"][0].id],
    }
    vm = engine.create(MACHINE, "plain", **plain_one)
    assert vm["privateIp"] == "10.8.1.5"
    assert vm["vpcSecurityGroupIds"] == [made["group"][0].id]
    changed, _ = engine.diff(vm, **plain_one)
    assert changed == {}
    second = engine.create(GROUP, "second", vpcId=made["vpc"][0].id)
    engine.update(vm, **{**plain_one, "vpcSecurityGroupIds": [second.id]})
    assert vm["vpcSecurityGroupIds"] == [second.id]
    engine.update(vm, **plain_one)
    engine.destroy()
    assert account.inventory() == []
