"""What an instance's inputs become in EC2's RunInstances."""

from __future__ import annotations

import base64
from typing import Any

from deployer.sandbox.provider_base import ProviderError, Values

METADATA = {
    "httpEndpoint": "HttpEndpoint",
    "httpProtocolIpv6": "HttpProtocolIpv6",
    "httpPutResponseHopLimit": "HttpPutResponseHopLimit",
    "httpTokens": "HttpTokens",
    "instanceMetadataTags": "InstanceMetadataTags",
}
DISK = {"volumeSize": "VolumeSize", "volumeType": "VolumeType", "iops": "Iops", "throughput": "Throughput"}
_SPOT = {
    "instanceInterruptionBehavior": "InstanceInterruptionBehavior",
    "maxPrice": "MaxPrice",
    "spotInstanceType": "SpotInstanceType",
    "validUntil": "ValidUntil",
}
_DIRECT = {
    "keyName": "KeyName",
    "subnetId": "SubnetId",
    "vpcSecurityGroupIds": "SecurityGroupIds",
    "privateIp": "PrivateIpAddress",
    "disableApiTermination": "DisableApiTermination",
    "disableApiStop": "DisableApiStop",
    "ebsOptimized": "EbsOptimized",
    "instanceInitiatedShutdownBehavior": "InstanceInitiatedShutdownBehavior",
}


def request(ec2: Any, inputs: Values) -> dict[str, Any]:
    """The call's parameters but for count, tags and client token. Asks EC2 for the image's root device if need be."""
    given = _named(inputs, _DIRECT)
    given |= {"ImageId": inputs["ami"], "InstanceType": inputs["instanceType"]}
    if inputs.get("userData"):
        given["UserData"] = inputs["userData"]  # boto3 encodes it
    elif inputs.get("userDataBase64"):
        given["UserData"] = base64.b64decode(inputs["userDataBase64"])
    if interface := inputs.get("primaryNetworkInterface"):
        given["NetworkInterfaces"] = [{"DeviceIndex": 0, "NetworkInterfaceId": interface["networkInterfaceId"]}]
    elif inputs.get("associatePublicIpAddress") is not None:
        made = {"DeviceIndex": 0, "DeleteOnTermination": True}
        made["AssociatePublicIpAddress"] = inputs["associatePublicIpAddress"]
        for name, inner in (("SubnetId", "SubnetId"), ("SecurityGroupIds", "Groups")):
            if name in given:
                made[inner] = given.pop(name)
        given["NetworkInterfaces"] = [made]
    if placement := _named(inputs, {"availabilityZone": "AvailabilityZone", "tenancy": "Tenancy"}):
        given["Placement"] = placement
    if inputs.get("monitoring") is not None:
        given["Monitoring"] = {"Enabled": bool(inputs["monitoring"])}
    if options := inputs.get("metadataOptions"):
        given["MetadataOptions"] = _named(options, METADATA)
    if market := inputs.get("instanceMarketOptions"):
        given["InstanceMarketOptions"] = _market(market)
    if disk := inputs.get("rootBlockDevice"):
        given["BlockDeviceMappings"] = [_root_mapping(ec2, inputs, disk)]
    return given


def raw_user_data(values: Values) -> bytes:
    """The bytes that the machine reads, in whichever of its two forms the program gave them."""
    if values.get("userDataBase64"):
        return base64.b64decode(values["userDataBase64"])
    return str(values.get("userData") or "").encode()


def disk_tags(inputs: Values) -> Values:
    """The tags that the program gives to the root volume."""
    return {**((inputs.get("rootBlockDevice") or {}).get("tags") or {}), **(inputs.get("volumeTags") or {})}


def _named(values: Values, names: dict[str, str]) -> dict[str, Any]:
    return {parameter: values[name] for name, parameter in names.items() if values.get(name) is not None}


def _market(market: Values) -> dict[str, Any]:
    out: dict[str, Any] = {"MarketType": market.get("marketType", "spot")}
    spot = _named(market.get("spotOptions") or {}, _SPOT)
    return {**out, "SpotOptions": spot} if spot else out


def _root_mapping(ec2: Any, inputs: Values, disk: Values) -> dict[str, Any]:
    images = ec2.describe_images(ImageIds=[inputs["ami"]])["Images"]
    if not images:
        raise ProviderError(f"creating EC2 Instance: collecting instance settings: couldn't find {inputs['ami']}")
    mapping = _named(disk, {**DISK, "encrypted": "Encrypted", "kmsKeyId": "KmsKeyId"})
    mapping["DeleteOnTermination"] = disk.get("deleteOnTermination", True)
    return {"DeviceName": images[0]["RootDeviceName"], "Ebs": mapping}
