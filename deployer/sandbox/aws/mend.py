"""What EC2 does with a call and moto leaves out: defaults filled in before, consequences drawn after."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Protocol

from deployer.sandbox.aws.query import Query, Refused
from deployer.sandbox.aws.rules_machines import place_of
from deployer.sandbox.aws.world import World


class Addresses(Protocol):
    """Where Elastic IPs come from: the sandbox's pool of loopback addresses."""

    def allocate(self, owner: str) -> str: ...

    def release(self, address: str) -> None: ...


# -- before ----------------------------------------------------------------------------------------------------
def fill_in(query: Query, world: World, addresses: Addresses) -> Callable[[], None] | None:
    """Completes the call's parameters. Answers what must be undone if the call then fails, or None."""
    if query.action == "AllocateAddress":
        query.params.setdefault("Domain", "vpc")
        address = addresses.allocate(f"ec2:eip {query.account}/{query.region}")
        query.params["Address"] = address
        return lambda: addresses.release(address)
    if query.action == "CreateSubnet" and not (query.get("AvailabilityZone") or query.get("AvailabilityZoneId")):
        # EC2 chooses, moto draws by lot: the first one, so that an emulated federation is the same each time.
        query.params["AvailabilityZone"] = world.zones()[0]
    if query.action == "CreateNetworkInterface" and not query.get("PrivateIpAddress"):
        if not any(key.startswith("PrivateIpAddresses.") for key in query.params):
            query.params["PrivateIpAddress"] = world.free_address(world.subnet(query.need("SubnetId")))
    elif query.action == "RunInstances":
        _fill_in_run(query, world)
    elif query.action == "ModifyInstanceAttribute" and query.get("UserData.Value"):
        # A blob travels in base64. moto unpacks it as one, and then once more as RunInstances' text.
        query.params["UserData.Value"] = base64.b64encode(query.need("UserData.Value").encode()).decode()
    return None


def _fill_in_run(query: Query, world: World) -> None:
    subnet, zone = place_of(query, world)
    if zone:
        query.params["Placement.AvailabilityZone"] = zone
    interfaces = query.groups("NetworkInterface")
    single = query.get("MaxCount") in (None, "1")
    if subnet is not None and not interfaces and single and not query.get("PrivateIpAddress"):
        query.params["PrivateIpAddress"] = world.free_address(subnet)
    image = world.ec2.amis[query.need("ImageId")]
    numbers = [int(match.group(1)) for key in query.params if (match := re.match(r"BlockDeviceMapping\.(\d+)\.", key))]
    number = next(
        (
            key.split(".")[1]
            for key, value in query.params.items()
            if key.startswith("BlockDeviceMapping.") and key.endswith(".DeviceName") and value == image.root_device_name
        ),
        str(max(numbers, default=0) + 1),
    )
    root = f"BlockDeviceMapping.{number}"
    query.params[f"{root}.DeviceName"] = image.root_device_name
    query.params.setdefault(f"{root}.Ebs.VolumeSize", str(image.ebs_snapshot.volume.size))
    query.params.setdefault(f"{root}.Ebs.VolumeType", "gp3")
    query.params.setdefault(f"{root}.Ebs.DeleteOnTermination", "true")
    query.params[f"{root}.Ebs.SnapshotId"] = image.ebs_snapshot.id


# -- instead ---------------------------------------------------------------------------------------------------
def answer(query: Query, world: World) -> bytes | None:
    """EC2's answer to what moto would do wrong or not at all, done here; None for all that moto does."""
    if query.action == "ModifySecurityGroupRules":
        _modify_rules(query, world)
        return b"<ModifySecurityGroupRulesResponse><return>true</return></ModifySecurityGroupRulesResponse>"
    return None


def _modify_rules(query: Query, world: World) -> None:
    """moto changes IPv4 rules with ports only; here every kind of source, and all protocols."""
    group = world.group(query.need("GroupId"))
    every = {rule.id: rule for rule in [*group.ingress_rules, *group.egress_rules]}
    for item in query.groups("SecurityGroupRule"):
        rule = every.get(item.get("SecurityGroupRuleId", ""))
        if rule is None:
            raise Refused(
                "InvalidSecurityGroupRuleId.NotFound",
                f"The security group rule ID '{item.get('SecurityGroupRuleId')}' does not exist",
            )
        new = {key.removeprefix("SecurityGroupRule."): value for key, value in item.items()}
        text = {"Description": new["Description"]} if new.get("Description") else {}
        rule.ip_protocol = new["IpProtocol"]
        ports = new["IpProtocol"] != "-1"
        rule.from_port = int(new["FromPort"]) if ports and "FromPort" in new else None
        rule.to_port = int(new["ToPort"]) if ports and "ToPort" in new else None
        if "CidrIpv4" in new:
            rule.ip_range = {"CidrIp": new["CidrIpv4"], **text}
        elif "CidrIpv6" in new:
            rule.ip_range = {"CidrIpv6": new["CidrIpv6"], **text}
        elif "ReferencedGroupId" in new:
            rule.source_group = {
                "GroupId": world.group(new["ReferencedGroupId"]).id,
                "OwnerId": world.account,
                "UserId": world.account,
                **text,
            }


# -- after -----------------------------------------------------------------------------------------------------
def draw_consequences(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    """Does in moto's memory what EC2 would have done besides, once the call has succeeded."""
    after = _AFTER.get(query.action)
    if after is not None:
        after(query, world, answer, addresses, before)


def look(query: Query, world: World) -> Any:
    """What a consequence needs to know of the time before the call."""
    if query.action == "ReleaseAddress":
        return world.address(query.get("AllocationId"), query.get("PublicIp")).public_ip
    if query.action == "AssociateAddress":
        return world.address(query.get("AllocationId"), query.get("PublicIp")).eni
    if query.action == "StartInstances":
        instances = [world.instance(instance_id) for instance_id in query.items("InstanceId")]
        return [instance for instance in instances if instance.state == "stopped"]
    return None


def _ran(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for instance_id in sorted(set(re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", answer))):
        instance = world.instance(instance_id)
        instance.disable_api_termination = query.flag("DisableApiTermination")
        instance.spot_type = query.get("InstanceMarketOptions.SpotOptions.SpotInstanceType") or "one-time"
        given = {item.get("NetworkInterfaceId") for item in query.groups("NetworkInterface")}
        for eni in instance.nics.values():
            if eni.id not in given:
                spec = next(
                    (s for s in query.groups("NetworkInterface") if s.get("DeviceIndex") == str(eni.device_index)), {}
                )
                eni.delete_on_termination = spec.get("DeleteOnTermination", "true") == "true"
            for address in world.ec2.addresses:
                if address.eni is eni:
                    address.instance = instance
        _give_public(world, instance, addresses)
        for mapping in query.groups("BlockDeviceMapping"):
            device = instance.block_device_mapping.get(mapping.get("DeviceName"))
            volume = world.ec2.volumes.get(device.volume_id) if device else None
            if volume is not None:
                is_gp3 = volume.volume_type == "gp3"
                volume.iops = int(mapping.get("Ebs.Iops", 3000 if is_gp3 else 100))
                volume.throughput = int(mapping.get("Ebs.Throughput", 125)) if is_gp3 else None


def _give_public(world: World, instance: Any, addresses: Addresses) -> None:
    """A public address that EC2 gives by itself (no Elastic IP) is one of the sandbox's own too, while it lasts."""
    fixed = {address.public_ip for address in world.ec2.addresses}
    for eni in instance.nics.values():
        if eni.public_ip and eni.public_ip not in fixed and not getattr(eni, "sandbox_public", None):
            eni.public_ip = eni.sandbox_public = addresses.allocate(f"ec2:public-ip {world.account}/{world.region}")


def _take_public(instance: Any, addresses: Addresses) -> None:
    for eni in instance.nics.values():
        if given := getattr(eni, "sandbox_public", None):
            addresses.release(given)
            eni.sandbox_public = None


def _started(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for instance in before:
        instance.sandbox_boots = getattr(instance, "sandbox_boots", 0) + 1
        if not any(getattr(eni, "sandbox_public", None) for eni in instance.nics.values()):
            _give_public(world, instance, addresses)


def _stopped(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for instance_id in query.items("InstanceId"):
        _take_public(world.instance(instance_id), addresses)


def _terminated(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for instance_id in query.items("InstanceId"):
        instance = world.ec2.get_instance_by_id(instance_id)
        _take_public(instance, addresses)
        for eni in list(instance.nics.values()):
            _let_go(world, eni, keep_address=eni.id in world.ec2.enis)
            eni.instance = None
            eni.attachment_id = None
            eni.attach_time = None
            eni.status = "available"


def _let_go(world: World, eni: Any, *, keep_address: bool) -> None:
    """An interface leaves its machine; where it is gone altogether its Elastic IP is free again."""
    for address in world.ec2.addresses:
        if address.eni is eni:
            address.instance = None
            if not keep_address:
                address.eni = None
                address.association_id = None


def _interface_deleted(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for address in world.ec2.addresses:
        if address.eni is not None and address.eni.id == query.get("NetworkInterfaceId"):
            _let_go(world, address.eni, keep_address=False)


def _interface_attached(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    eni = world.interface(query.need("NetworkInterfaceId"))
    for address in world.ec2.addresses:
        if address.eni is eni:
            address.instance = eni.instance


def _groups_of_interface(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    eni = world.interface(query.need("NetworkInterfaceId"))
    if query.items("SecurityGroupId") and eni.instance is not None and eni.device_index == 0:
        eni.instance.security_groups = list(eni._group_set)


def _instance_modified(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    instance = world.instance(query.need("InstanceId"))
    if wanted := query.items("GroupId"):
        instance.security_groups = [world.group(group_id) for group_id in wanted]
        instance.nics[0]._group_set = list(instance.security_groups)
    if behaviour := query.get("InstanceInitiatedShutdownBehavior.Value"):
        instance.instance_initiated_shutdown_behavior = behaviour
    for name, attribute in (
        ("DisableApiTermination", "disable_api_termination"),
        ("DisableApiStop", "disable_api_stop"),
    ):
        if f"{name}.Value" in query.params:
            setattr(instance, attribute, query.flag(f"{name}.Value"))


def _rebooted(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    for instance_id in query.items("InstanceId"):
        instance = world.instance(instance_id)
        instance.sandbox_boots = getattr(instance, "sandbox_boots", 0) + 1


def _associated(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    address = world.address(query.get("AllocationId"), query.get("PublicIp"))
    if before is not None and before is not address.eni:
        before.public_ip = None
    for other in world.ec2.addresses:
        if other is not address and other.eni is address.eni:
            other.eni = other.instance = other.association_id = None
    address.instance = address.eni.instance


def _released(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    addresses.release(before)


def _subnet_deleted(query: Query, world: World, answer: str, addresses: Addresses, before: Any) -> None:
    gone = query.get("SubnetId")
    for table in world.ec2.route_tables.values():
        for association, subnet_id in list(table._associations.items()):
            if subnet_id == gone:
                del table._associations[association]


_AFTER: dict[str, Callable[[Query, World, str, Addresses, Any], None]] = {
    "RunInstances": _ran,
    "TerminateInstances": _terminated,
    "StartInstances": _started,
    "StopInstances": _stopped,
    "RebootInstances": _rebooted,
    "ModifyInstanceAttribute": _instance_modified,
    "DeleteNetworkInterface": _interface_deleted,
    "AttachNetworkInterface": _interface_attached,
    "ModifyNetworkInterfaceAttribute": _groups_of_interface,
    "AssociateAddress": _associated,
    "ReleaseAddress": _released,
    "DeleteSubnet": _subnet_deleted,
}
