"""What EC2 refuses and moto alone would accept: seen by a plain boto3 client, with EC2's own codes and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import REGION, Account

Refused = Callable[..., str]


# -- the list of the known gaps, one test each -------------------------------------------------------------------
def test_an_interface_is_attached_once(account: Account, refused: Refused) -> None:
    net = account.network()
    account.run(net["eni"])
    message = refused("InvalidNetworkInterface.InUse", account.run, eni=net["eni"])
    assert message == f"Interface: [{net['eni']}] in use."


def test_an_elastic_ip_needs_an_internet_gateway(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(gateway=False), account.ec2
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    message = refused("Gateway.NotAttached", ec2.associate_address, AllocationId=address, NetworkInterfaceId=net["eni"])
    assert message == f"Network {net['vpc']} is not attached to any internet gateway"


def test_a_gateway_stays_while_addresses_are_mapped(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    address = account.address(net["eni"])
    gone = {"InternetGatewayId": net["gateway"], "VpcId": net["vpc"]}
    message = refused("DependencyViolation", ec2.detach_internet_gateway, **gone)
    assert message.startswith(f"Network {net['vpc']} has some mapped public address(es). Please unmap")
    found = ec2.describe_addresses(AllocationIds=[address["id"]])["Addresses"][0]
    ec2.disassociate_address(AssociationId=found["AssociationId"])
    ec2.detach_internet_gateway(**gone)


def test_a_subnet_in_use_stays(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    message = refused("DependencyViolation", ec2.delete_subnet, SubnetId=net["subnet"])
    assert message == f"The subnet '{net['subnet']}' has dependencies and cannot be deleted."
    ec2.delete_network_interface(NetworkInterfaceId=net["eni"])
    ec2.delete_subnet(SubnetId=net["subnet"])
    associations = ec2.describe_route_tables(RouteTableIds=[net["table"]])["RouteTables"][0]["Associations"]
    assert associations == []  # they go with the subnet


def test_a_security_group_in_use_stays(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    message = refused("DependencyViolation", ec2.delete_security_group, GroupId=net["group"])
    assert message == f"resource {net['group']} has a dependent object"


def test_a_security_group_that_another_ones_rule_names_stays(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    other = ec2.create_security_group(GroupName="other", Description="other", VpcId=net["vpc"])["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "UserIdGroupPairs": [{"GroupId": other}]}
    ec2.authorize_security_group_ingress(GroupId=net["group"], IpPermissions=[rule])
    refused("DependencyViolation", ec2.delete_security_group, GroupId=other)
    ec2.revoke_security_group_ingress(GroupId=net["group"], IpPermissions=[rule])
    ec2.delete_security_group(GroupId=other)


@pytest.mark.parametrize("left", ["subnet", "gateway", "group"])
def test_a_vpc_in_use_stays(account: Account, refused: Refused, left: str) -> None:
    ec2 = account.ec2
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    if left == "subnet":
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")
    elif left == "group":
        ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)
    else:
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    message = refused("DependencyViolation", ec2.delete_vpc, VpcId=vpc)
    assert message == f"The vpc '{vpc}' has dependencies and cannot be deleted."


def test_an_unknown_image(account: Account, refused: Refused) -> None:
    message = refused("InvalidAMIID.NotFound", account.run, ImageId="ami-0123456789abcdef0")
    assert message == "The image id '[ami-0123456789abcdef0]' does not exist"
    refused("InvalidAMIID.Malformed", account.run, ImageId="ubuntu")


def test_an_unknown_instance_type(account: Account, refused: Refused) -> None:
    message = refused("InvalidParameterValue", account.run, InstanceType="m7i.enormous")
    assert message == "Invalid value 'm7i.enormous' for InstanceType."


def test_a_type_that_the_region_does_not_offer(account: Account, refused: Refused) -> None:
    message = refused("Unsupported", account.run, InstanceType="p5.48xlarge")
    assert message.startswith("Your requested instance type (p5.48xlarge) is not supported in your region")


def test_user_data_is_limited_to_16_kib(account: Account, refused: Refused) -> None:
    account.run(account.network()["eni"], UserData="#" * 16384)
    message = refused("InvalidParameterValue", account.run, UserData="#" * 16385)
    assert message == "User data is limited to 16384 bytes"


def test_a_group_description_is_ascii(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    given = {"GroupName": "g", "VpcId": net["vpc"]}
    message = refused("InvalidParameterValue", ec2.create_security_group, Description="Universität", **given)
    assert message.endswith("for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.")
    refused("InvalidParameterValue", ec2.create_security_group, Description="a'b", **given)
    refused("InvalidParameterValue", ec2.create_security_group, Description="x" * 256, **given)
    refused("InvalidParameterValue", ec2.create_security_group, Description="d", GroupName="sg-1", VpcId=net["vpc"])


def test_a_rules_description_is_from_ec2s_alphabet(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "1.2.3.4/32"}]}
    rule["IpRanges"][0]["Description"] = "Ana's laptop"  # type: ignore[index]
    message = refused(
        "InvalidParameterValue", ec2.authorize_security_group_ingress, GroupId=net["group"], IpPermissions=[rule]
    )
    assert message.startswith("Invalid rule description.")


def test_a_one_time_spot_instance_is_not_stopped(account: Account, refused: Refused) -> None:
    spot = account.run(account.network()["eni"], InstanceMarketOptions={"MarketType": "spot"})
    message = refused("UnsupportedOperation", account.ec2.stop_instances, InstanceIds=[spot])
    assert message.startswith(f"You can't stop the Spot Instance '{spot}' because it is associated with a one-time")


def test_a_persistent_spot_instance_is_stopped(account: Account) -> None:
    options = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent"}}
    spot = account.run(account.network()["eni"], InstanceMarketOptions=options)
    account.ec2.stop_instances(InstanceIds=[spot])


def test_five_vpcs_in_a_region_the_default_one_included(account: Account, refused: Refused) -> None:
    ec2 = account.ec2
    for _ in range(4):
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    message = refused("VpcLimitExceeded", ec2.create_vpc, CidrBlock="10.0.0.0/16")
    assert message == "The maximum number of VPCs has been reached."
    account.client("ec2", "eu-west-1").create_vpc(CidrBlock="10.0.0.0/16")


def test_five_gateways_in_a_region(account: Account, refused: Refused) -> None:
    ec2 = account.ec2
    while len(ec2.describe_internet_gateways()["InternetGateways"]) < 5:
        ec2.create_internet_gateway()
    refused("InternetGatewayLimitExceeded", ec2.create_internet_gateway)


def test_five_elastic_ips_in_a_region(account: Account, refused: Refused) -> None:
    ec2 = account.ec2
    given = [ec2.allocate_address(Domain="vpc") for _ in range(5)]
    message = refused("AddressLimitExceeded", ec2.allocate_address, Domain="vpc")
    assert message == "The maximum number of addresses has been reached."
    ec2.release_address(AllocationId=given[0]["AllocationId"])
    ec2.allocate_address(Domain="vpc")


def test_sixty_rules_in_a_group_and_direction(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2

    def rules(first: int, count: int) -> list[dict[str, Any]]:
        ranges = [{"CidrIp": f"10.0.0.{number}/32"} for number in range(first, first + count)]
        return [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": ranges}]

    ec2.authorize_security_group_ingress(GroupId=net["group"], IpPermissions=rules(1, 60))
    refused(
        "RulesPerSecurityGroupLimitExceeded",
        ec2.authorize_security_group_ingress,
        GroupId=net["group"],
        IpPermissions=rules(61, 1),
    )
    ec2.authorize_security_group_egress(GroupId=net["group"], IpPermissions=rules(1, 59))  # one was there


def test_a_repeated_client_token_makes_one_machine(account: Account, refused: Refused) -> None:
    net = account.network()
    image = account.image()
    given: dict[str, Any] = {"eni": net["eni"], "ClientToken": "attempt-1", "ImageId": image}
    first = account.run(**given)
    assert account.run(**given) == first
    assert [machine.id for machine in account.machines()] == [first]
    message = refused("IdempotentParameterMismatch", account.run, **{**given, "InstanceType": "m7i.xlarge"})
    assert message.startswith("Arguments on this idempotent request are inconsistent")


# -- the same kind, found besides --------------------------------------------------------------------------------
def test_an_address_in_use_is_not_released(account: Account, refused: Refused) -> None:
    net = account.network()
    address = account.address(net["eni"])
    message = refused("InvalidIPAddress.InUse", account.ec2.release_address, AllocationId=address["id"])
    assert message == f"Address {address['ip']} is in use."


def test_an_attached_interface_is_not_deleted(account: Account, refused: Refused) -> None:
    net = account.network()
    machine = account.run(net["eni"])
    refused("InvalidParameterValue", account.ec2.delete_network_interface, NetworkInterfaceId=net["eni"])
    account.ec2.terminate_instances(InstanceIds=[machine])
    account.ec2.delete_network_interface(NetworkInterfaceId=net["eni"])


def test_one_elastic_ip_for_an_interface(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    account.address(net["eni"])
    second = ec2.allocate_address(Domain="vpc")["AllocationId"]
    refused("Resource.AlreadyAssociated", ec2.associate_address, AllocationId=second, NetworkInterfaceId=net["eni"])


def test_type_and_user_data_change_on_a_stopped_machine_only(account: Account, refused: Refused) -> None:
    machine, ec2 = account.run(account.network()["eni"]), account.ec2
    change = {"InstanceId": machine, "InstanceType": {"Value": "m7i.xlarge"}}
    message = refused("IncorrectInstanceState", ec2.modify_instance_attribute, **change)
    assert message == f"The instance '{machine}' is not in the 'stopped' state."
    ec2.stop_instances(InstanceIds=[machine])
    ec2.modify_instance_attribute(**change)
    ec2.start_instances(InstanceIds=[machine])
    assert account.machines()[0].size == "m7i.xlarge"


def test_a_volume_is_attached_in_its_zone_and_once(account: Account, refused: Refused) -> None:
    machine, ec2 = account.run(account.network()["eni"]), account.ec2
    far = ec2.create_volume(AvailabilityZone="eu-central-1b", Size=8)["VolumeId"]
    near = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=8)["VolumeId"]
    where = {"InstanceId": machine, "Device": "/dev/sdf"}
    refused("InvalidVolume.ZoneMismatch", ec2.attach_volume, VolumeId=far, **where)
    ec2.attach_volume(VolumeId=near, **where)
    refused("VolumeInUse", ec2.attach_volume, VolumeId=near, InstanceId=machine, Device="/dev/sdg")
    refused("VolumeInUse", ec2.delete_volume, VolumeId=near)


def test_a_root_disk_is_not_smaller_than_its_image(account: Account, refused: Refused) -> None:
    small = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 7}}]
    message = refused("InvalidBlockDeviceMapping", account.run, BlockDeviceMappings=small)
    assert "expect size >= 8GB" in message


def test_what_does_not_exist_is_named(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    refused("InvalidKeyPair.NotFound", account.run, eni=net["eni"], KeyName="nobody")
    refused(
        "InvalidGroup.NotFound", ec2.create_network_interface, SubnetId=net["subnet"], Groups=["sg-0123456789abcdef0"]
    )
    refused("InvalidNetworkInterfaceID.NotFound", account.run, eni="eni-0123456789abcdef0")
    refused("InvalidAllocationID.NotFound", ec2.release_address, AllocationId="eipalloc-0123456789abcdef0")


def test_a_group_of_another_network(account: Account, refused: Refused) -> None:
    first, ec2 = account.network(), account.ec2
    other = ec2.create_vpc(CidrBlock="10.10.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="g", Description="d", VpcId=other)["GroupId"]
    message = refused("InvalidParameter", ec2.create_network_interface, SubnetId=first["subnet"], Groups=[group])
    assert message.endswith("belong to different networks.")


def test_a_route_to_another_networks_gateway(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    stray = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    route = {"RouteTableId": net["table"], "DestinationCidrBlock": "192.0.2.0/24", "GatewayId": stray}
    message = refused("InvalidParameterValue", ec2.create_route, **route)
    assert message.endswith("belong to different networks")


def test_addresses_of_a_subnet_that_are_awss_own_or_taken(account: Account, refused: Refused) -> None:
    net, ec2 = account.network(), account.ec2
    for address, code in (
        ("10.9.1.1", "InvalidParameterValue"),
        ("10.8.0.1", "InvalidParameterValue"),
        ("10.9.1.4", "InvalidIPAddress.InUse"),
    ):
        refused(code, ec2.create_network_interface, SubnetId=net["subnet"], PrivateIpAddress=address)


def test_tags_that_aws_keeps_for_itself(account: Account, refused: Refused) -> None:
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "aws:owner", "Value": "me"}]}]
    message = refused("InvalidParameterValue", account.ec2.create_vpc, CidrBlock="10.0.0.0/16", TagSpecifications=tags)
    assert message == "Tag keys starting with 'aws:' are reserved for internal use"


def test_no_capacity_by_fault(account: Account, fault: Callable[..., None]) -> None:
    net = account.network(zone="eu-central-1b")
    fault(no_capacity=["eu-central-1b"])
    with pytest.raises(ClientError) as caught:
        account.run(net["eni"])
    error = caught.value.response
    assert error["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "in the Availability Zone you requested (eu-central-1b)" in error["Error"]["Message"]
    assert "choosing eu-central-1a, eu-central-1c." in error["Error"]["Message"]
    fault(no_capacity=[REGION])
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        account.run(net["eni"])
    fault()
    account.run(net["eni"])


def test_a_dry_run_meets_the_rules_and_makes_nothing(account: Account, refused: Refused) -> None:
    net = account.network()
    refused("DryRunOperation", account.run, eni=net["eni"], DryRun=True)
    assert account.machines() == []
