"""What AWS holds of a participant, and its deletion.

Found by tags, as every kind that has them is tagged when it is made; else by the parent: routes and associations by
their table, attachments by their volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from deployer.cloud_clients import offered_zones
from deployer.errors import CloudError
from deployer.settle import aws_kinds as kinds
from deployer.settle.aws_delete import delete
from deployer.settle.model import AGAIN, Found, OnStep, Whose
from deployer.settle.state import attachment_id, route_id
from stacks.names import belongs_to, tag_key

if TYPE_CHECKING:
    from deployer.cloud_clients import AwsClients


class AwsWorld:
    """One AWS account in one region, by its clients."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients

    def find(self, whose: Whose) -> list[Found]:
        """Everything of this participant in this region. Raises `CloudError`."""
        try:
            return _find(self._here, self._clients.region, whose)
        except (BotoCoreError, ClientError) as error:
            raise CloudError(
                "AWS can't be asked", participant=whose.participant, why=str(error), next_step=AGAIN
            ) from error

    def marked(self, federation: str) -> list[Whose]:
        """Everybody whose things in this region say by their tags that they are this federation's."""
        told: dict[str, dict[str, str]] = {}
        keys = {tag_key("aws", name): name for name in ("federation", "deployment", "participant")}
        try:
            pages = self._here.get_paginator("describe_tags")
            for page in pages.paginate(Filters=[{"Name": "key", "Values": list(keys)}]):
                for tag in page["Tags"]:
                    told.setdefault(tag["ResourceId"], {})[keys[tag["Key"]]] = tag["Value"]
        except (BotoCoreError, ClientError) as error:
            raise CloudError("AWS can't be asked", why=str(error), next_step=AGAIN) from error
        mine = [tags for tags in told.values() if tags.get("federation") == federation and len(tags) == len(keys)]
        return sorted({Whose(**tags) for tags in mine}, key=lambda whose: (whose.participant, whose.deployment))

    def zones(self, size: str) -> tuple[str, ...]:
        """The zones of the region that offer a machine size. Raises `CloudError`."""
        try:
            return offered_zones(self._here, {size}).get(size.lower(), ())
        except (BotoCoreError, ClientError) as error:
            raise CloudError("AWS can't be asked", why=str(error), next_step=AGAIN) from error

    def check(self, whose: Whose) -> None:
        """Nothing to check: AWS has no names that two could want, key pairs apart, whose name holds the deployment."""

    def delete(self, found: Iterable[Found], on_step: OnStep) -> None:
        """Delete exactly these and wait until they are gone. Raises `CloudError`."""
        things = list(found)
        doomed = {thing.id for thing in things}
        for thing in sorted(things, key=lambda t: kinds.ORDER.index(t.type)):
            if thing.goes_with in doomed:
                continue
            on_step(f"deleting {thing.title}")
            delete(thing, self._here)

    def ec2(self, region: str) -> Any:
        """EC2's client for a region."""
        return self._clients.client("ec2", region)

    @property
    def _here(self) -> Any:
        return self.ec2(self._clients.region)


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
        ("describe_vpcs", "Vpcs", kinds.VPC, "VpcId"),
        ("describe_internet_gateways", "InternetGateways", kinds.GATEWAY, "InternetGatewayId"),
        ("describe_subnets", "Subnets", kinds.SUBNET, "SubnetId"),
        ("describe_security_groups", "SecurityGroups", kinds.GROUP, "GroupId"),
        ("describe_network_interfaces", "NetworkInterfaces", kinds.INTERFACE, "NetworkInterfaceId"),
    ):
        for entry in tagged(operation, key):
            add(kind, entry[field], entry)
    groups = [thing.id for thing in found if thing.type == kinds.GROUP]
    if groups:
        pages = ec2.get_paginator("describe_security_group_rules").paginate(
            Filters=[{"Name": "group-id", "Values": groups}]
        )
        for rule in (rule for page in pages for rule in page["SecurityGroupRules"]):
            if belongs_to("aws", _tags(rule), **vars(whose)):
                add(kinds.EGRESS if rule["IsEgress"] else kinds.INGRESS, rule["SecurityGroupRuleId"], rule)
    for table in tagged("describe_route_tables", "RouteTables"):
        add(kinds.TABLE, table["RouteTableId"], table)
        found.extend(_inside_table(table, region, whose.participant))
    for entry in ec2.describe_addresses(Filters=filters)["Addresses"]:
        if belongs_to("aws", _tags(entry), **vars(whose)):
            add(kinds.ADDRESS, entry["AllocationId"], entry)
    for entry in ec2.describe_key_pairs(Filters=filters)["KeyPairs"]:
        if belongs_to("aws", _tags(entry), **vars(whose)):
            add(kinds.KEY, entry["KeyName"], entry, created=entry.get("CreateTime"))
    roots: dict[str, str] = {}
    for reservation in _pages(ec2, "describe_instances", "Reservations", filters):
        for entry in reservation["Instances"]:
            if entry["State"]["Name"] != "terminated" and belongs_to("aws", _tags(entry), **vars(whose)):
                busy = entry["State"]["Name"] not in ("running", "stopped")
                add(
                    kinds.INSTANCE,
                    entry["InstanceId"],
                    entry,
                    created=entry.get("LaunchTime"),
                    busy=busy,
                    size=entry["InstanceType"],
                )
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
            inside.append(Found("aws", kinds.ROUTE, where, f"{participant}-default-route", region))
    for association in table.get("Associations", []):
        if not association.get("Main"):
            where = association["RouteTableAssociationId"]
            inside.append(Found("aws", kinds.ASSOCIATION, where, f"{participant}-subnet-routes", region))
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
    made, gib = entry.get("CreateTime"), int(entry.get("Size") or 0)
    volume = Found("aws", kinds.VOLUME, known, name, region, goes_with=owner, created=made, busy=busy, gib=gib)
    if owner:
        return [volume]
    links = [
        Found(
            "aws",
            kinds.ATTACHMENT,
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
