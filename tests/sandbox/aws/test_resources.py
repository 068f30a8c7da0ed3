"""Every kind of resource as an engine sees it: made, imported, refreshed, compared and taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from deployer.sandbox.provider_values import UNKNOWN, plain

from .aws_engine import CheckFailed, Engine, InitFailed, Resource
from .aws_programs import (
    ADDRESS,
    ASSOCIATION,
    ATTACHMENT,
    GATEWAY,
    GROUP,
    INGRESS,
    INTERFACE,
    KEY,
    MACHINE,
    ROUTE,
    SUBNET,
    VPC,
    ZONE,
    participant,
)
from .conftest import Account
from .test_sdk_names import sdk_class, wire_names


def test_a_participant_is_made_and_taken_away_with_nothing_left(engine: Engine, account: Account) -> None:
    before = account.cloud.pool.owned()
    made = participant(engine)
    assert {item.kind for item in account.inventory()} == {
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
    }
    vm, address = made["vm"][0], made["address"][0]
    assert vm["publicIp"] == address["publicIp"]
    assert vm["instanceState"] == "running"
    assert vm["rootBlockDevice"]["volumeSize"] == 32
    assert vm["metadataOptions"]["httpTokens"] == "required"
    assert made["route"][0].id == f"r-{made['table'][0].id}1080289494"  # as in the real provider: CRC-32
    engine.destroy()
    assert account.inventory() == []
    assert account.machines() == []
    assert account.cloud.pool.owned() == before


def test_nothing_differs_and_nothing_is_refreshed_after_a_create(engine: Engine) -> None:
    for name, (resource, inputs) in participant(engine).items():
        changed, answer = engine.diff(resource, **inputs)
        assert changed == {}, name
        assert answer.changes == answer.DIFF_NONE
        live = engine.read(resource)
        assert live is not None, name
        assert live.inputs == resource.inputs, name
        if name == "address":  # it was made before the machine that it is at
            live.outputs.pop("instance", None)
        assert live.outputs == resource.outputs, name


def test_what_is_told_of_a_resource_bears_the_sdks_names(engine: Engine) -> None:
    for name, (resource, _) in participant(engine).items():
        assert sorted(set(resource.outputs) - wire_names(sdk_class(resource.type)) - {"id"}) == [], name


def test_what_is_imported_needs_no_replacement(engine: Engine) -> None:
    made = participant(engine)
    ids = {name: resource.id for name, (resource, _) in made.items()}
    typed = {
        **ids,
        "route": f"{ids['table']}_0.0.0.0/0",
        "association": f"{ids['subnet']}/{ids['table']}",
        "attachment": f"/dev/sdf:{ids['volume']}:{ids['vm']}",
    }
    for name, (resource, inputs) in made.items():
        found = engine.read(Resource(resource.type, resource.name, typed[name]), importing=True)
        assert found is not None, name
        assert found.id == resource.id, name
        changed, answer = engine.diff(found, **inputs)
        assert list(answer.replaces) == [], name
        # What no API tells is the only thing that the first update then sets.
        assert set(changed) <= {"revokeRulesOnDelete"}, name


def test_what_is_not_there_is_not_imported(engine: Engine) -> None:
    for token, wanted in (
        (VPC, "vpc-0123456789abcdef0"),
        (MACHINE, "i-0123456789abcdef0"),
        (KEY, "nobody"),
        (ADDRESS, "eipalloc-0123456789abcdef0"),
        (INGRESS, "sgr-0123456789abcdef0"),
        (ROUTE, "rtb-0123456789abcdef0_0.0.0.0/0"),
        (ASSOCIATION, "subnet-0123456789abcdef0/rtb-0123456789abcdef0"),
        (ATTACHMENT, "/dev/sdf:vol-0123456789abcdef0:i-0123456789abcdef0"),
    ):
        assert engine.read(Resource(token, "x", wanted), importing=True) is None, token


def test_what_was_removed_elsewhere_is_gone_on_refresh_and_deletes_well(engine: Engine, account: Account) -> None:
    made = participant(engine)
    ec2 = account.ec2
    vm, address, rule = made["vm"][0], made["address"][0], made["ssh"][0]
    ec2.terminate_instances(InstanceIds=[vm.id])
    ec2.disassociate_address(AssociationId=ec2.describe_addresses()["Addresses"][0]["AssociationId"])
    ec2.release_address(AllocationId=address.id)
    ec2.revoke_security_group_ingress(GroupId=made["group"][0].id, SecurityGroupRuleIds=[rule.id])
    ec2.delete_route(RouteTableId=made["table"][0].id, DestinationCidrBlock="0.0.0.0/0")
    for name in ("vm", "address", "ssh", "route", "attachment"):
        assert engine.read(made[name][0]) is None, name
    assert engine.read(made["interface"][0]) is not None
    engine.destroy()
    assert account.inventory() == []


def test_drift_is_seen_in_the_inputs_and_mended(engine: Engine, account: Account) -> None:
    made = participant(engine)
    vpc, inputs = made["vpc"]
    account.ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsHostnames={"Value": False})
    account.ec2.create_tags(Resources=[vpc.id], Tags=[{"Key": "Name", "Value": "other"}, {"Key": "x", "Value": "y"}])
    drifted = engine.read(vpc)
    assert drifted is not None
    assert drifted.inputs["enableDnsHostnames"] is False
    assert drifted.inputs["tags"] == {"Name": "other", "x": "y"}
    changed, _ = engine.diff(drifted, **inputs)
    assert changed == {
        "enableDnsHostnames": "update",
        "tags.Name": "update",
        "tags.x": "delete",
        "tagsAll.Name": "update",
        "tagsAll.x": "delete",
    }
    engine.update(drifted, **inputs)
    assert drifted["tagsAll"] == {"Name": "v"}
    assert drifted["enableDnsHostnames"] is True


# What a change means, as in the real provider's documentation ("Forces new resource") and source.
CHANGES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("vpc", {"cidrBlock": "10.9.0.0/16"}, {"cidrBlock": "update-replace"}),
    ("vpc", {"enableDnsHostnames": False}, {"enableDnsHostnames": "update"}),
    ("subnet", {"cidrBlock": "10.8.2.0/24"}, {"cidrBlock": "update-replace"}),
    ("subnet", {"availabilityZone": "eu-central-1a"}, {"availabilityZone": "update-replace"}),
    ("subnet", {"mapPublicIpOnLaunch": True}, {"mapPublicIpOnLaunch": "update"}),
    ("gateway", {"vpcId": "vpc-2"}, {"vpcId": "update"}),
    ("table", {"vpcId": "vpc-2"}, {"vpcId": "update-replace"}),
    ("route", {"gatewayId": "igw-2"}, {"gatewayId": "update"}),
    ("route", {"destinationCidrBlock": "10.0.0.0/8"}, {"destinationCidrBlock": "update-replace"}),
    ("association", {"routeTableId": "rtb-2"}, {"routeTableId": "update"}),
    ("association", {"subnetId": "subnet-2"}, {"subnetId": "update-replace"}),
    ("group", {"description": "another"}, {"description": "update-replace"}),
    ("group", {"name": "another"}, {"name": "update-replace"}),
    ("group", {"revokeRulesOnDelete": False}, {"revokeRulesOnDelete": "update"}),
    ("ssh", {"cidrIpv4": "203.0.113.7/32"}, {"cidrIpv4": "update"}),
    ("ssh", {"toPort": 23}, {"toPort": "update"}),
    ("ssh", {"cidrIpv4": None, "cidrIpv6": "::/0"}, {"cidrIpv4": "delete-replace", "cidrIpv6": "add-replace"}),
    ("ssh", {"securityGroupId": "sg-2"}, {"securityGroupId": "update-replace"}),
    ("interface", {"subnetId": "subnet-2"}, {"subnetId": "update-replace"}),
    ("interface", {"securityGroups": ["sg-2"]}, {"securityGroups[0]": "update"}),
    ("interface", {"description": "another"}, {"description": "update"}),
    ("address", {"networkInterface": "eni-2"}, {"networkInterface": "update"}),
    ("key", {"publicKey": "ssh-ed25519 AAAA"}, {"publicKey": "update-replace"}),
    ("key", {"keyName": "another"}, {"keyName": "update-replace"}),
    ("vm", {"ami": "ami-2"}, {"ami": "update-replace"}),
    ("vm", {"instanceType": "m7i.xlarge"}, {"instanceType": "update"}),
    ("vm", {"instanceType": "m7g.large"}, {"instanceType": "update-replace"}),  # another architecture
    ("vm", {"userData": "#cloud-config\n#2\n"}, {"userData": "update"}),
    ("vm", {"userDataReplaceOnChange": True}, {"userDataReplaceOnChange": "update"}),
    (
        "vm",
        {"userData": "#cloud-config\n#2\n", "userDataReplaceOnChange": True},
        {"userData": "update-replace", "userDataReplaceOnChange": "update"},
    ),
    ("vm", {"keyName": "another"}, {"keyName": "update-replace"}),
    (
        "vm",
        {"primaryNetworkInterface": {"networkInterfaceId": "eni-2"}},
        {"primaryNetworkInterface.networkInterfaceId": "update-replace"},
    ),
    ("vm", {"instanceMarketOptions": {"marketType": "spot"}}, {"instanceMarketOptions": "add-replace"}),
    ("vm", {"tags": {"a:b": "c"}}, {"tags": "add", 'tagsAll["a:b"]': "add"}),
    ("volume", {"size": 30}, {"size": "update"}),
    ("volume", {"type": "gp2"}, {"type": "update"}),
    ("volume", {"encrypted": False}, {"encrypted": "update-replace"}),
    ("volume", {"availabilityZone": "eu-central-1a"}, {"availabilityZone": "update-replace"}),
    ("attachment", {"deviceName": "/dev/sdg"}, {"deviceName": "update-replace"}),
    ("attachment", {"forceDetach": True}, {"forceDetach": "add"}),
    ("vpc", {"region": "eu-west-1"}, {"region": "add-replace"}),
]


def test_what_updates_and_what_replaces(engine: Engine) -> None:
    made = participant(engine)
    for name, change, expected in CHANGES:
        resource, inputs = made[name]
        changed, answer = engine.diff(resource, **{**inputs, **change})
        assert changed == expected, (name, change)
        replacing = {path.split(".")[0].split("[")[0] for path, kind in changed.items() if kind.endswith("replace")}
        assert set(answer.replaces) == replacing, (name, change)
        assert answer.changes == answer.DIFF_SOME


def test_a_nested_change_that_replaces_names_its_place(engine: Engine) -> None:
    resource, inputs = participant(engine)["vm"]
    disk = {**inputs["rootBlockDevice"], "encrypted": False, "volumeSize": 64}
    changed, answer = engine.diff(resource, **{**inputs, "rootBlockDevice": disk})
    assert changed == {"rootBlockDevice.encrypted": "update-replace", "rootBlockDevice.volumeSize": "update"}
    assert list(answer.replaces) == ["rootBlockDevice"]


def test_an_ignored_change_is_none(engine: Engine) -> None:
    resource, inputs = participant(engine)["vm"]
    changed, answer = engine.diff(resource, ignore=("ami",), **{**inputs, "ami": "ami-2"})
    assert changed == {}
    assert answer.changes == answer.DIFF_NONE


def test_a_given_name_is_deleted_before_it_is_taken_again(engine: Engine) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.8.0.0/16")
    given = {"name": "given", "vpcId": vpc.id, "description": "one"}
    named = engine.create(GROUP, "named", **given)
    _, answer = engine.diff(named, **{**given, "description": "two"})
    assert answer.deleteBeforeReplace
    made_up = engine.create(GROUP, "made-up", vpcId=vpc.id, description="one")
    _, answer = engine.diff(made_up, vpcId=vpc.id, description="two")
    assert not answer.deleteBeforeReplace
    assert made_up["name"].startswith("made-up-")


def test_a_spot_machine(engine: Engine) -> None:
    vm, inputs = participant(engine, instanceMarketOptions={"marketType": "spot"})["vm"]
    assert vm["instanceLifecycle"] == "spot"
    with pytest.raises(grpc.RpcError, match="UnsupportedOperation"):
        engine.update(vm, **{**inputs, "instanceType": "m7i.xlarge"})


def test_a_machines_arguments_that_exclude_each_other(engine: Engine) -> None:
    _, inputs = participant(engine)["vm"]
    with pytest.raises(CheckFailed, match=r"subnetId: .*conflicts with primaryNetworkInterface"):
        engine.create(MACHINE, "x", **{**inputs, "subnetId": "subnet-1"})


def test_a_property_that_is_not_emulated_is_refused_by_its_name(engine: Engine) -> None:
    with pytest.raises(CheckFailed, match="does not emulate the property 'ipv4IpamPoolId' of aws:ec2/vpc:Vpc"):
        engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16", ipv4IpamPoolId="pool")
    with pytest.raises(CheckFailed, match="Missing required property 'publicKey'"):
        engine.create(KEY, "key")


def test_a_preview_tells_what_can_be_known(engine: Engine) -> None:
    out = engine.preview(SUBNET, "subnet", vpcId=UNKNOWN, cidrBlock="10.8.1.0/24", tags={"a": "b"})
    assert out["vpcId"] == UNKNOWN
    assert out["cidrBlock"] == "10.8.1.0/24"
    assert out["arn"] == UNKNOWN
    assert out["availabilityZone"] == UNKNOWN
    assert out["tagsAll"] == {"a": "b"}
    assert out["region"] == "eu-central-1"


def test_a_preview_of_an_update_keeps_what_stays(engine: Engine, account: Account) -> None:
    vm, inputs = participant(engine)["vm"]
    changed, _ = engine.diff(vm, **{**inputs, "keyName": UNKNOWN})
    assert changed == {"keyName": "update-replace"}
    assert plain(vm.outputs)["userData"] == "#cloud-config\n"
    assert len(account.machines()) == 1


def test_created_but_not_finished_is_kept_and_repaired(engine: Engine, account: Account) -> None:
    """An address whose association fails exists: the engine is told its id, and the next update associates it."""
    vpc = engine.create(VPC, "vpc", cidrBlock="10.8.0.0/16")
    subnet = engine.create(SUBNET, "subnet", vpcId=vpc.id, cidrBlock="10.8.1.0/24")
    eni = engine.create(INTERFACE, "eni", subnetId=subnet.id)
    with pytest.raises(InitFailed, match=r"api error Gateway\.NotAttached: Network vpc-") as caught:
        engine.create(ADDRESS, "address", domain="vpc", networkInterface=eni.id)
    half = caught.value.detail
    assert half.id == account.ec2.describe_addresses()["Addresses"][0]["AllocationId"]
    inputs = {"domain": "vpc", "networkInterface": eni.id}
    engine.create(GATEWAY, "gateway", vpcId=vpc.id)
    address = Resource(ADDRESS, "address", half.id, {**inputs}, {"publicIp": "x", "region": "eu-central-1"})
    engine.update(address, **inputs)
    assert address["networkInterface"] == eni.id
    engine.made.append(address)
    engine.destroy()
    assert account.inventory() == []


def test_an_error_reads_as_the_real_providers(engine: Engine, fault: Callable[..., None]) -> None:
    made = participant(engine)
    engine.delete(made["attachment"][0])
    engine.delete(made["vm"][0])
    fault(no_capacity=[ZONE])
    with pytest.raises(grpc.RpcError) as caught:
        engine.create(MACHINE, "vm", **made["vm"][1])
    text = caught.value.details()  # type: ignore[attr-defined]
    assert text.startswith("creating EC2 Instance (vm): operation error EC2: RunInstances, https response error")
    assert "StatusCode: 500" in text
    assert "api error InsufficientInstanceCapacity: We currently do not have sufficient m7i.large capacity" in text
    assert "Traceback" not in text
