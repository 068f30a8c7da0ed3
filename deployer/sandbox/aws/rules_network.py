"""What EC2 refuses about networks and moto accepts: dependencies, order of gateway and addresses, quotas, texts.

Each function takes the call and the region as it is before the call, and raises `Refused` with EC2's own error code and
message (EC2 API reference, "Error codes for the Amazon EC2 API"; messages as its clients report them).
"""

from __future__ import annotations

import re

from deployer.sandbox.aws.query import Query, Refused
from deployer.sandbox.aws.quotas import limit
from deployer.sandbox.aws.world import World

_DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]*\Z")


def create_vpc(query: Query, world: World) -> None:
    if len(world.ec2.vpcs) >= limit(world.account, world.region, "L-F678F1CE"):
        raise Refused("VpcLimitExceeded", "The maximum number of VPCs has been reached.")


def create_internet_gateway(query: Query, world: World) -> None:
    if len(world.ec2.internet_gateways) >= limit(world.account, world.region, "L-A4707A72"):
        raise Refused("InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached.")


def attach_internet_gateway(query: Query, world: World) -> None:
    vpc = query.need("VpcId")
    other = world.gateway_of(vpc)
    if other is not None and other.id != query.get("InternetGatewayId"):
        raise Refused("InvalidParameterValue", f"Network {vpc} already has an internet gateway attached")


def detach_internet_gateway(query: Query, world: World) -> None:
    vpc = query.need("VpcId")
    if any(eni.public_ip for eni in world.interfaces_in(vpc=vpc)):
        raise Refused(
            "DependencyViolation",
            f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before"
            " detaching the gateway.",
        )


def delete_vpc(query: Query, world: World) -> None:
    vpc = query.need("VpcId")
    used = (
        world.gateway_of(vpc) is not None
        or world.interfaces_in(vpc=vpc)
        or any(group.vpc_id == vpc and not group.is_default for group in world.groups())
    )
    if used:
        raise Refused("DependencyViolation", f"The vpc '{vpc}' has dependencies and cannot be deleted.")


def delete_subnet(query: Query, world: World) -> None:
    subnet = query.need("SubnetId")
    if world.interfaces_in(subnet=subnet):
        raise Refused("DependencyViolation", f"The subnet '{subnet}' has dependencies and cannot be deleted.")


def create_route(query: Query, world: World) -> None:
    gateway, table = query.get("GatewayId"), world.ec2.route_tables.get(query.get("RouteTableId"))
    igw = world.ec2.internet_gateways.get(gateway) if gateway else None
    if igw is not None and table is not None and (igw.vpc is None or igw.vpc.id != table.vpc_id):
        raise Refused(
            "InvalidParameterValue", f"route table {table.id} and network gateway {igw.id} belong to different networks"
        )


def delete_route_table(query: Query, world: World) -> None:
    table = world.ec2.route_tables.get(query.need("RouteTableId"))
    if table is not None and table.main_association_id is not None:
        raise Refused("DependencyViolation", f"The routeTable '{table.id}' has dependencies and cannot be deleted.")


def associate_route_table(query: Query, world: World) -> None:
    subnet_id, table = query.get("SubnetId"), world.ec2.route_tables.get(query.get("RouteTableId"))
    if subnet_id is None or table is None:
        return
    subnet = world.subnet(subnet_id)
    if subnet.vpc_id != table.vpc_id:
        raise Refused(
            "InvalidParameterValue", f"Route table {table.id} and subnet {subnet.id} belong to different networks"
        )
    for other in world.ec2.route_tables.values():
        if other.id != table.id and subnet_id in other._associations.values():
            raise Refused(
                "Resource.AlreadyAssociated",
                f"the specified association for route table {table.id} conflicts with an existing association",
            )


# -- security groups -------------------------------------------------------------------------------------------
def create_security_group(query: Query, world: World) -> None:
    for name in ("GroupDescription", "GroupName"):
        value = query.params.get(name, "")
        if not value.isascii():
            raise Refused(
                "InvalidParameterValue",
                f"Value ({value}) for parameter {name} is invalid. Character sets beyond ASCII are not supported.",
            )
        if len(value) > 255:
            raise Refused(
                "InvalidParameterValue",
                f"Value ({value}) for parameter {name} is invalid. The length exceeds the maximum of 255 characters.",
            )
        if not _DESCRIPTION.match(value):
            raise Refused(
                "InvalidParameterValue",
                f"Value ({value}) for parameter {name} is invalid. Valid characters are a-z, A-Z, 0-9, spaces, and"
                " ._-:/()#,@[]+=&;{}!$*",
            )
    if query.params.get("GroupName", "").startswith("sg-"):
        raise Refused("InvalidParameterValue", "invalid value for parameter groupName: it may not start with sg-")


def delete_security_group(query: Query, world: World) -> None:
    group_id = query.get("GroupId")
    if group_id is None:
        return
    group = world.group(group_id)
    if group.is_default:
        raise Refused("CannotDelete", f'the specified group: "{group_id}" name: "default" cannot be deleted by a user')
    referenced = any(
        rule.source_group.get("GroupId") == group_id
        for other in world.groups()
        if other.id != group_id
        for rule in [*other.ingress_rules, *other.egress_rules]
    )
    worn = any(group_id in (member.id for member in eni.group_set) for eni in world.ec2.enis.values())
    if referenced or worn:
        raise Refused("DependencyViolation", f"resource {group_id} has a dependent object")


def _authorize(query: Query, world: World, *, egress: bool) -> None:
    added = 0
    for permission in query.groups("IpPermissions"):
        for key, value in permission.items():
            if key.endswith(".Description") and (not _DESCRIPTION.match(value) or len(value) > 255):
                raise Refused(
                    "InvalidParameterValue",
                    "Invalid rule description. Valid descriptions are strings less than 256 characters from the"
                    " following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
                )
        sources = {re.sub(r"(\.\d+)\..*", r"\1", key) for key in permission if "." in key}
        added += max(len(sources), 1)
        protocol = permission.get("IpProtocol", "-1").lower()
        first, last = permission.get("FromPort"), permission.get("ToPort")
        if protocol in ("tcp", "udp", "6", "17") and (first is None or last is None):
            raise Refused(
                "InvalidParameterValue",
                "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
            )
        if protocol in ("tcp", "udp") and not 0 <= int(first or 0) <= int(last or 0) <= 65535:
            raise Refused("InvalidParameterValue", f"Invalid TCP/UDP port range ({first}:{last})")
    group_id = query.get("GroupId")
    if group_id is not None:
        group = world.group(group_id)
        present = len(group.egress_rules if egress else group.ingress_rules)
        if present + added > limit(world.account, world.region, "L-0EA8095F"):
            raise Refused(
                "RulesPerSecurityGroupLimitExceeded",
                "The maximum number of rules per security group has been reached.",
            )


def authorize_ingress(query: Query, world: World) -> None:
    _authorize(query, world, egress=False)


def authorize_egress(query: Query, world: World) -> None:
    _authorize(query, world, egress=True)


# -- interfaces and addresses ----------------------------------------------------------------------------------
def create_network_interface(query: Query, world: World) -> None:
    subnet = world.subnet(query.need("SubnetId"))
    for group_id in query.items("SecurityGroupId"):
        if world.group(group_id).vpc_id != subnet.vpc_id:
            raise Refused(
                "InvalidParameter", f"Security group {group_id} and subnet {subnet.id} belong to different networks."
            )
    if address := query.get("PrivateIpAddress"):
        world.check_private_address(subnet, address)


def modify_network_interface(query: Query, world: World) -> None:
    eni = world.interface(query.need("NetworkInterfaceId"))
    for group_id in query.items("SecurityGroupId"):
        if world.group(group_id).vpc_id != eni.vpc_id:
            raise Refused(
                "InvalidParameter",
                f"Security group {group_id} and interface {eni.id} belong to different networks.",
            )


def attach_network_interface(query: Query, world: World) -> None:
    eni = world.interface(query.need("NetworkInterfaceId"))
    if eni.instance is not None:
        raise Refused("InvalidNetworkInterface.InUse", f"Interface: [{eni.id}] in use.")


def delete_network_interface(query: Query, world: World) -> None:
    eni = world.interface(query.need("NetworkInterfaceId"))
    if eni.instance is not None:
        raise Refused("InvalidParameterValue", f"Network interface '{eni.id}' is currently in use.")


def allocate_address(query: Query, world: World) -> None:
    if len(world.ec2.addresses) >= limit(world.account, world.region, "L-0263D0A3"):
        raise Refused("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    if address := query.get("Address"):
        raise Refused("InvalidAddress.NotFound", f"Address '{address}' not found.")


def associate_address(query: Query, world: World) -> None:
    address = world.address(query.get("AllocationId"), query.get("PublicIp"))
    if instance_id := query.get("InstanceId"):
        instance = world.instance(instance_id)
        if instance.state not in ("pending", "running", "stopping", "stopped"):
            raise Refused(
                "InvalidInstanceID", f"The instance '{instance_id}' is not in a valid state for this operation."
            )
        eni = instance.nics[0]
    else:
        eni = world.interface(query.need("NetworkInterfaceId"))
    if world.gateway_of(eni.vpc_id) is None:
        raise Refused("Gateway.NotAttached", f"Network {eni.vpc_id} is not attached to any internet gateway")
    if query.flag("AllowReassociation"):
        return
    if address.association_id and address.eni is not eni:
        raise Refused(
            "Resource.AlreadyAssociated",
            f"resource {address.allocation_id} is already associated with associate-id {address.association_id}",
        )
    for other in world.ec2.addresses:
        if other is not address and other.eni is eni:
            raise Refused(
                "Resource.AlreadyAssociated",
                f"resource {eni.id} is already associated with associate-id {other.association_id}",
            )


def release_address(query: Query, world: World) -> None:
    address = world.address(query.get("AllocationId"), query.get("PublicIp"))
    if address.association_id:
        raise Refused("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")


RULES = {
    "CreateVpc": create_vpc,
    "CreateInternetGateway": create_internet_gateway,
    "AttachInternetGateway": attach_internet_gateway,
    "DetachInternetGateway": detach_internet_gateway,
    "DeleteVpc": delete_vpc,
    "DeleteSubnet": delete_subnet,
    "CreateRoute": create_route,
    "DeleteRouteTable": delete_route_table,
    "AssociateRouteTable": associate_route_table,
    "CreateSecurityGroup": create_security_group,
    "DeleteSecurityGroup": delete_security_group,
    "AuthorizeSecurityGroupIngress": authorize_ingress,
    "AuthorizeSecurityGroupEgress": authorize_egress,
    "CreateNetworkInterface": create_network_interface,
    "ModifyNetworkInterfaceAttribute": modify_network_interface,
    "AttachNetworkInterface": attach_network_interface,
    "DeleteNetworkInterface": delete_network_interface,
    "AllocateAddress": allocate_address,
    "AssociateAddress": associate_address,
    "ReleaseAddress": release_address,
}
