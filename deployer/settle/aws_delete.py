"""Deleting one thing on AWS: patiently, as most of it is still in use for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployer.settle import aws_kinds as kinds
from deployer.settle.model import Found, undeleted

TERMINATE_LIMIT_S = 600
"""How long a machine may take to terminate."""

IN_USE_LIMIT_S = 180
"""How long any other deletion waits for what is still in use."""

_POLL_S = 1.0

# EC2's words for "still in use" and "in between two states": time mends them.
_PATIENCE = (
    "DependencyViolation",
    "IncorrectState",
    "IncorrectInstanceState",
    "VolumeInUse",
    "InvalidNetworkInterface.InUse",
    "InvalidIPAddress.InUse",
    "ResourceInUse",
    "RequestLimitExceeded",
    "Throttling",
)
_GONE = ("Gateway.NotAttached", "InvalidAssociationID.NotFound", "InvalidSecurityGroupRuleId.NotFound")


def delete(thing: Found, ec2: Any) -> None:
    """Delete until it succeeds or the thing is gone; wait while EC2 says that it is still in use."""
    until = time.monotonic() + IN_USE_LIMIT_S
    while True:
        try:
            _DELETE[thing.type](ec2, thing.id)
            return
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code.endswith((".NotFound", ".Malformed")) or code in _GONE:
                return
            if not code.startswith(_PATIENCE) or time.monotonic() > until:
                raise undeleted(thing, str(error)) from error
        except BotoCoreError as error:
            raise undeleted(thing, str(error)) from error
        time.sleep(_POLL_S)


def _delete_instance(ec2: Any, known: str) -> None:
    ec2.terminate_instances(InstanceIds=[known])
    waiter = {"Delay": 2, "MaxAttempts": TERMINATE_LIMIT_S // 2}
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[known], WaiterConfig=waiter)


def _delete_address(ec2: Any, known: str) -> None:
    (entry,) = ec2.describe_addresses(AllocationIds=[known])["Addresses"]
    if association := entry.get("AssociationId"):
        ec2.disassociate_address(AssociationId=association)
    ec2.release_address(AllocationId=known)


def _delete_gateway(ec2: Any, known: str) -> None:
    (entry,) = ec2.describe_internet_gateways(InternetGatewayIds=[known])["InternetGateways"]
    for attachment in entry.get("Attachments", []):
        ec2.detach_internet_gateway(InternetGatewayId=known, VpcId=attachment["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=known)


def _delete_rule(ec2: Any, known: str, egress: bool) -> None:
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[known])["SecurityGroupRules"]
    revoke = ec2.revoke_security_group_egress if egress else ec2.revoke_security_group_ingress
    revoke(GroupId=rule["GroupId"], SecurityGroupRuleIds=[known])


def _delete_attachment(ec2: Any, known: str) -> None:
    device, volume, instance = known.split(":")
    ec2.detach_volume(Device=device, VolumeId=volume, InstanceId=instance)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 2, "MaxAttempts": 150})


def _delete_route(ec2: Any, known: str) -> None:
    table, _, destination = known.partition("_")
    ec2.delete_route(RouteTableId=table, DestinationCidrBlock=destination)


_DELETE: dict[str, Callable[[Any, str], None]] = {
    kinds.INSTANCE: _delete_instance,
    kinds.ATTACHMENT: _delete_attachment,
    kinds.VOLUME: lambda ec2, known: ec2.delete_volume(VolumeId=known),
    kinds.ADDRESS: _delete_address,
    kinds.INTERFACE: lambda ec2, known: ec2.delete_network_interface(NetworkInterfaceId=known),
    kinds.INGRESS: lambda ec2, known: _delete_rule(ec2, known, False),
    kinds.EGRESS: lambda ec2, known: _delete_rule(ec2, known, True),
    kinds.ASSOCIATION: lambda ec2, known: ec2.disassociate_route_table(AssociationId=known),
    kinds.ROUTE: _delete_route,
    kinds.TABLE: lambda ec2, known: ec2.delete_route_table(RouteTableId=known),
    kinds.GROUP: lambda ec2, known: ec2.delete_security_group(GroupId=known),
    kinds.SUBNET: lambda ec2, known: ec2.delete_subnet(SubnetId=known),
    kinds.GATEWAY: _delete_gateway,
    kinds.VPC: lambda ec2, known: ec2.delete_vpc(VpcId=known),
    kinds.KEY: lambda ec2, known: ec2.delete_key_pair(KeyName=known),
}
