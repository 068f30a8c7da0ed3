"""What AWS holds of a participant, and its deletion.

Found by tags, as every kind that has them is tagged when it is made; else by the parent: routes and associations by
their table, attachments by their volume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deployer.errors import CloudError
from deployer.settle.model import AGAIN, Found, OnStep, Whose, undeleted
from deployer.settle.state import attachment_id, route_id
from stacks.names import belongs_to, tag_key

if TYPE_CHECKING:
    import boto3

TERMINATE_LIMIT_S = 600
"""How long a machine may take to terminate."""

IN_USE_LIMIT_S = 180
"""How long any other deletion waits for what is still in use."""

_POLL_S = 1.0

VPC = "aws:ec2/vpc:Vpc"
GATEWAY = "aws:ec2/internetGateway:InternetGateway"
SUBNET = "aws:ec2/subnet:Subnet"
TABLE = "aws:ec2/routeTable:RouteTable"
ROUTE = "aws:ec2/route:Route"
ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
INTERFACE = "aws:ec2/networkInterface:NetworkInterface"
ADDRESS = "aws:ec2/eip:Eip"
KEY = "aws:ec2/keyPair:KeyPair"
INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"
ATTACHMENT = "aws:ec2/volumeAttachment:VolumeAttachment"

_ORDER = (
    INSTANCE, ATTACHMENT, VOLUME, ADDRESS, INTERFACE, INGRESS, EGRESS, ASSOCIATION, ROUTE, TABLE, GROUP, SUBNET,
    GATEWAY, VPC, KEY,
)  # fmt: skip

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


class AwsWorld:
    """One AWS account, seen in one region and in any others that a stack once used.

    Args:
        session: whose credentials.
        region: the participant's region.
        endpoints: service name to URL, where it is not AWS's own (`ec2` is used).
        other_regions: looked at too, for a participant that has moved.
    """

    def __init__(
        self,
        session: boto3.session.Session,
        region: str,
        endpoints: Mapping[str, str] | None = None,
        other_regions: tuple[str, ...] = (),
    ) -> None:
        self._session = session
        self._endpoint = (endpoints or {}).get("ec2")
        self._regions = tuple(dict.fromkeys((region, *other_regions)))
        self._made: dict[str, Any] = {}

    def find(self, whose: Whose) -> list[Found]:
        """Everything of this participant in these regions. Raises `CloudError`."""
        try:
            return [found for region in self._regions for found in _find(self._ec2(region), region, whose)]
        except (BotoCoreError, ClientError) as error:
            raise CloudError(
                "AWS can't be asked", participant=whose.participant, why=str(error), next_step=AGAIN
            ) from error

    def check(self, whose: Whose) -> None:
        """Nothing to check: AWS has no names that two could want, key pairs apart, whose name holds the deployment."""

    def delete(self, found: Iterable[Found], on_step: OnStep) -> None:
        """Delete exactly these and wait until they are gone. Raises `CloudError`."""
        things = list(found)
        doomed = {thing.id for thing in things}
        for thing in sorted(things, key=lambda t: _ORDER.index(t.type)):
            if thing.goes_with in doomed:
                continue
            on_step(f"deleting {thing.title}")
            _patiently(thing, self._ec2(thing.region))

    def _ec2(self, region: str) -> Any:
        if region not in self._made:
            config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 5, "mode": "standard"})
            self._made[region] = self._session.client(
                "ec2", region_name=region, endpoint_url=self._endpoint, config=config
            )
        return self._made[region]


def _tags(entry: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in entry.get("Tags") or entry.get("TagSet") or []}


def _find(ec2: Any, region: str, whose: Whose) -> list[Found]:
    filters = [{"Name": f"tag:{tag_key('aws', name)}", "Values": [value]} for name, value in vars(whose).items()]
    found: list[Found] = []

    def add(kind: str, known: str, entry: Mapping[str, Any], **more: Any) -> None:
        name = _tags(entry).get(tag_key("aws", "logical-name"), "")
        found.append(Found("aws", kind, known, name, region, **more))

    def tagged(operation: str, key: str) -> list[Any]:
        pages = ec2.get_paginator(operation).paginate(Filters=filters)
        entries = [entry for page in pages for entry in page[key]]
        # Asked again of the answer: a wrong match here would be deleted.
        return [e for e in entries if belongs_to("aws", _tags(e), **vars(whose))]

    for operation, key, kind, field in (
        ("describe_vpcs", "Vpcs", VPC, "VpcId"),
        ("describe_internet_gateways", "InternetGateways", GATEWAY, "InternetGatewayId"),
        ("describe_subnets", "Subnets", SUBNET, "SubnetId"),
        ("describe_security_groups", "SecurityGroups", GROUP, "GroupId"),
        ("describe_network_interfaces", "NetworkInterfaces", INTERFACE, "NetworkInterfaceId"),
    ):
        for entry in tagged(operation, key):
            add(kind, entry[field], entry)
    groups = [thing.id for thing in found if thing.type == GROUP]
    if groups:
        pages = ec2.get_paginator("describe_security_group_rules").paginate(
            Filters=[{"Name": "group-id", "Values": groups}]
        )
        for rule in (rule for page in pages for rule in page["SecurityGroupRules"]):
            if belongs_to("aws", _tags(rule), **vars(whose)):
                add(EGRESS if rule["IsEgress"] else INGRESS, rule["SecurityGroupRuleId"], rule)
    for table in tagged("describe_route_tables", "RouteTables"):
        add(TABLE, table["RouteTableId"], table)
        found.extend(_inside_table(table, region, whose.participant))
    for entry in ec2.describe_addresses(Filters=filters)["Addresses"]:
        if belongs_to("aws", _tags(entry), **vars(whose)):
            add(ADDRESS, entry["AllocationId"], entry)
    for entry in ec2.describe_key_pairs(Filters=filters)["KeyPairs"]:
        if belongs_to("aws", _tags(entry), **vars(whose)):
            add(KEY, entry["KeyName"], entry, created=entry.get("CreateTime"))
    roots: dict[str, str] = {}
    for reservation in _pages(ec2, "describe_instances", "Reservations", filters):
        for entry in reservation["Instances"]:
            if entry["State"]["Name"] != "terminated" and belongs_to("aws", _tags(entry), **vars(whose)):
                busy = entry["State"]["Name"] not in ("running", "stopped")
                add(INSTANCE, entry["InstanceId"], entry, created=entry.get("LaunchTime"), busy=busy)
                roots |= _root_volume(entry)
    for entry in tagged("describe_volumes", "Volumes"):
        found.extend(_volume(entry, region, whose.participant, roots))
    return found


def _pages(ec2: Any, operation: str, key: str, filters: list[Any]) -> list[Any]:
    return [entry for page in ec2.get_paginator(operation).paginate(Filters=filters) for entry in page[key]]


def _inside_table(table: Mapping[str, Any], region: str, participant: str) -> list[Found]:
    """Routes that somebody made (not those of EC2's own) and associations, neither of which has tags."""
    known = table["RouteTableId"]
    inside = []
    for route in table.get("Routes", []):
        if route.get("Origin", "CreateRoute") == "CreateRoute" and route.get("GatewayId") != "local":
            where = route_id(known, route.get("DestinationCidrBlock", ""))
            inside.append(Found("aws", ROUTE, where, f"{participant}-default-route", region))
    for association in table.get("Associations", []):
        if not association.get("Main"):
            where = association["RouteTableAssociationId"]
            inside.append(Found("aws", ASSOCIATION, where, f"{participant}-subnet-routes", region))
    return inside


def _root_volume(instance: Mapping[str, Any]) -> dict[str, str]:
    """The volume that a machine boots from, and goes with, by its ID."""
    return {
        mapping["Ebs"]["VolumeId"]: instance["InstanceId"]
        for mapping in instance.get("BlockDeviceMappings", [])
        if "Ebs" in mapping and mapping.get("DeviceName") == instance.get("RootDeviceName")
    }


def _volume(entry: Mapping[str, Any], region: str, participant: str, roots: Mapping[str, str]) -> list[Found]:
    """A volume and its attachment. A root disk goes with its machine, an attachment with the machine too."""
    known, name = entry["VolumeId"], _tags(entry).get(tag_key("aws", "logical-name"), "")
    owner = roots.get(known, "")
    busy = entry.get("State") in ("creating", "deleting")
    volume = Found("aws", VOLUME, known, name, region, goes_with=owner, created=entry.get("CreateTime"), busy=busy)
    if owner:
        return [volume]
    links = [
        Found(
            "aws",
            ATTACHMENT,
            attachment_id(a["Device"], known, a["InstanceId"]),
            f"{participant}-state-attachment",
            region,
            # Its create looks first whether it is there, so nothing needs to be done about one that is.
            goes_with=a["InstanceId"],
        )
        for a in entry.get("Attachments", [])
        if a.get("State") != "detached"
    ]
    return [volume, *links]


def _patiently(thing: Found, ec2: Any) -> None:
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
    INSTANCE: _delete_instance,
    ATTACHMENT: _delete_attachment,
    VOLUME: lambda ec2, known: ec2.delete_volume(VolumeId=known),
    ADDRESS: _delete_address,
    INTERFACE: lambda ec2, known: ec2.delete_network_interface(NetworkInterfaceId=known),
    INGRESS: lambda ec2, known: _delete_rule(ec2, known, False),
    EGRESS: lambda ec2, known: _delete_rule(ec2, known, True),
    ASSOCIATION: lambda ec2, known: ec2.disassociate_route_table(AssociationId=known),
    ROUTE: _delete_route,
    TABLE: lambda ec2, known: ec2.delete_route_table(RouteTableId=known),
    GROUP: lambda ec2, known: ec2.delete_security_group(GroupId=known),
    SUBNET: lambda ec2, known: ec2.delete_subnet(SubnetId=known),
    GATEWAY: _delete_gateway,
    VPC: lambda ec2, known: ec2.delete_vpc(VpcId=known),
    KEY: lambda ec2, known: ec2.delete_key_pair(KeyName=known),
}
