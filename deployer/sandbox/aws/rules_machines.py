"""What EC2 refuses about instances and volumes and moto accepts. Form and sources as in `rules_network`."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from deployer.sandbox import faults
from deployer.sandbox.aws.query import Query, Refused
from deployer.sandbox.aws.quotas import limit, vcpu_code
from deployer.sandbox.aws.world import World

MAX_USER_DATA = 16 * 1024  # bytes, before base64
MAX_TAGS = 50


def check_tags(query: Query) -> None:
    """Tags: at most 50 for each resource, keys to 128 and values to 256 characters, none of AWS's own."""
    tags = list(query.tags())
    for key, value in tags:
        if key.lower().startswith("aws:"):
            raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if not 1 <= len(key) <= 128:
            raise Refused("InvalidParameterValue", f"Tag key exceeds the maximum length of 128 characters: {key}")
        if len(value) > 256:
            raise Refused("InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters")
    if len({key for key, _ in tags}) > MAX_TAGS:
        raise Refused("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")


def check_user_data(encoded: str) -> None:
    try:
        raw = base64.b64decode(encoded, validate=False)
    except (binascii.Error, ValueError):
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > MAX_USER_DATA:
        raise Refused("InvalidParameterValue", f"User data is limited to {MAX_USER_DATA} bytes")


def place_of(query: Query, world: World) -> tuple[Any | None, str | None]:
    """The subnet and the zone in which RunInstances would put the machine."""
    interfaces = query.groups("NetworkInterface")
    subnet_id = query.get("SubnetId")
    for interface in interfaces:
        if eni_id := interface.get("NetworkInterfaceId"):
            return world.interface(eni_id).subnet, world.interface(eni_id).availability_zone
        subnet_id = subnet_id or interface.get("SubnetId")
    if subnet_id:
        subnet = world.subnet(subnet_id)
        return subnet, subnet.availability_zone
    return None, query.get("Placement.AvailabilityZone")


def run_instances(query: Query, world: World) -> None:
    image_id = query.need("ImageId")
    if not image_id.startswith("ami-"):
        raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
    if image_id not in world.ec2.amis:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    _check_interfaces(query, world)
    _check_type(query, world)
    key = query.get("KeyName")
    if key and key not in world.ec2.key_pairs:
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    if data := query.get("UserData"):
        check_user_data(data)
    image = world.ec2.amis[image_id]
    size = int(image.ebs_snapshot.volume.size)
    for mapping in query.groups("BlockDeviceMapping"):
        given = mapping.get("Ebs.VolumeSize")
        if mapping.get("DeviceName") == image.root_device_name and given and int(given) < size:
            raise Refused(
                "InvalidBlockDeviceMapping",
                f"Volume of size {given}GB is smaller than snapshot '{image.ebs_snapshot.id}', expect size >= {size}GB",
            )


def _check_interfaces(query: Query, world: World) -> None:
    interfaces = query.groups("NetworkInterface")
    if interfaces and (query.items("SecurityGroupId") or query.items("SecurityGroup")):
        raise Refused(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    for interface in interfaces:
        eni_id = interface.get("NetworkInterfaceId")
        if eni_id and world.interface(eni_id).instance is not None:
            raise Refused("InvalidNetworkInterface.InUse", f"Interface: [{eni_id}] in use.")
    subnet, _ = place_of(query, world)
    for group_id in query.items("SecurityGroupId"):
        group = world.group(group_id)
        if subnet is not None and group.vpc_id != subnet.vpc_id:
            raise Refused(
                "InvalidParameter", f"Security group {group_id} and subnet {subnet.id} belong to different networks."
            )
    if subnet is not None and (address := query.get("PrivateIpAddress")):
        world.check_private_address(subnet, address)


def _check_type(query: Query, world: World) -> None:
    instance_type = query.get("InstanceType") or "m1.small"
    _, zone = place_of(query, world)
    known, offered, zones = world.offered(instance_type, zone)
    if not known:
        raise Refused("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    if not offered:
        where = f"your requested Availability Zone ({zone})" if zone and zones else f"your region ({world.region})"
        hint = (
            " Please retry your request by not specifying an Availability Zone or choosing " + ", ".join(zones) + "."
            if zones
            else ""
        )
        raise Refused(
            "Unsupported",
            f"Your requested instance type ({instance_type}) is not supported in {where}.{hint}",
        )
    _check_vcpus(query, world, instance_type)
    spot = query.get("InstanceMarketOptions.MarketType") == "spot"
    check_capacity(world, instance_type, zone, zones, spot=spot)


def _check_vcpus(query: Query, world: World, instance_type: str) -> None:
    """The vCPUs of a family's running machines in a region, spot machines apart."""
    code = vcpu_code(instance_type, query.get("InstanceMarketOptions.MarketType") == "spot")
    running = [one for one in world.instances() if one.state in ("pending", "running")]
    used = sum(
        world.vcpus(one.instance_type)
        for one in running
        if vcpu_code(one.instance_type, one.lifecycle == "spot") == code
    )
    allowed = limit(world.account, world.region, code)
    if used + world.vcpus(instance_type) * int(query.get("MaxCount") or 1) > allowed:
        raise Refused(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {allowed} allows for the instance"
            " bucket that the specified instance type belongs to. Please visit"
            " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


def check_capacity(world: World, instance_type: str, zone: str | None, zones: list[str], *, spot: bool = False) -> None:
    """The fault `no_capacity`: a zone, a region and all its zones, a size, or spot machines, out of stock."""
    book = faults.book()
    if spot and book.no_capacity("spot"):
        raise Refused(
            "InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.", 500
        )
    if not book.no_capacity(zone, world.region, instance_type):
        return
    others = [other for other in zones if other != zone and not book.no_capacity(other, world.region)]
    hint = (
        f" You can currently get {instance_type} capacity by not specifying an Availability Zone in your request or"
        f" choosing {', '.join(others)}."
        if others
        else ""
    )
    raise Refused(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested"
        f" ({zone or world.region}). Our system will be working on provisioning additional capacity.{hint}",
        500,
    )


def _one_time_spot(instance: Any) -> bool:
    return instance.lifecycle == "spot" and getattr(instance, "spot_type", "one-time") == "one-time"


def stop_instances(query: Query, world: World) -> None:
    for instance_id in query.items("InstanceId"):
        instance = world.instance(instance_id)
        if _one_time_spot(instance):
            raise Refused(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance_id}' because it is associated with a one-time Spot"
                " Instance request. You can only stop Spot Instances associated with persistent Spot Instance"
                " requests.",
            )
        if instance.state == "terminated":
            raise Refused(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in a state from which it can be stopped.",
            )


def start_instances(query: Query, world: World) -> None:
    for instance_id in query.items("InstanceId"):
        instance = world.instance(instance_id)
        if instance.state not in ("stopped", "running", "pending"):
            raise Refused(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in a state from which it can be started.",
            )
        if instance.state == "stopped":
            _, _, zones = world.offered(instance.instance_type, instance.availability_zone)
            check_capacity(world, instance.instance_type, instance.availability_zone, zones)


def modify_instance(query: Query, world: World) -> None:
    instance = world.instance(query.need("InstanceId"))
    attribute = query.get("Attribute")
    needs_stop = attribute in ("instanceType", "userData") or any(
        f"{name}.Value" in query.params for name in ("InstanceType", "UserData", "EbsOptimized")
    )
    if needs_stop and instance.state != "stopped":
        raise Refused("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state.")
    if data := query.get("UserData.Value"):
        check_user_data(data)
    if wanted := query.get("InstanceType.Value"):
        known, offered, _ = world.offered(wanted, instance.availability_zone)
        if not known or not offered:
            raise Refused("InvalidInstanceAttributeValue", f"Invalid value '{wanted}' for InstanceType.")


def attach_volume(query: Query, world: World) -> None:
    volume, instance = world.volume(query.need("VolumeId")), world.instance(query.need("InstanceId"))
    device = query.need("Device")
    if volume.attachment is not None:
        raise Refused("VolumeInUse", f"{volume.id} is already attached to an instance")
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.zone.name != instance.availability_zone:
        raise Refused(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    if device in instance.block_device_mapping:
        raise Refused(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def detach_volume(query: Query, world: World) -> None:
    volume = world.volume(query.need("VolumeId"))
    if volume.attachment is None:
        raise Refused("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    instance = volume.attachment.instance
    if volume.attachment.device == instance.root_device_name and instance.state == "running":
        raise Refused(
            "OperationNotPermitted",
            f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'",
        )


def create_volume(query: Query, world: World) -> None:
    zone = query.get("AvailabilityZone")
    if zone and zone not in world.zones():
        raise Refused("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")


def modify_volume(query: Query, world: World) -> None:
    volume = world.volume(query.need("VolumeId"))
    if (size := query.get("Size")) and int(size) < int(volume.size):
        raise Refused(
            "InvalidParameterValue",
            f"New size cannot be smaller than existing size: {size} < {volume.size}",
        )


RULES = {
    "RunInstances": run_instances,
    "StopInstances": stop_instances,
    "StartInstances": start_instances,
    "ModifyInstanceAttribute": modify_instance,
    "AttachVolume": attach_volume,
    "DetachVolume": detach_volume,
    "CreateVolume": create_volume,
    "ModifyVolume": modify_volume,
}
