"""The package's functions (data sources): aws.get_region, aws.ssm.get_parameter, aws.ec2.get_ami and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployer.sandbox.aws.resource import state_of
from deployer.sandbox.provider_base import Call, Function, ProviderError, Values
from deployer.sandbox.provider_values import secret

DESCRIPTIONS = {  # AWS General Reference, regions
    "eu-central-1": "Europe (Frankfurt)",
    "eu-west-1": "Europe (Ireland)",
    "eu-west-2": "Europe (London)",
    "eu-west-3": "Europe (Paris)",
    "eu-north-1": "Europe (Stockholm)",
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
}


def _region(call: Call, args: Values) -> str:
    return str(args.get("region") or state_of(call).region)


def _filters(args: Values) -> list[dict[str, Any]]:
    return [{"Name": item["name"], "Values": item["values"]} for item in args.get("filters") or []]


def get_parameter(call: Call, args: Values) -> Values:
    region = _region(call, args)
    decrypt = args.get("withDecryption", True)
    found = state_of(call).client("ssm", region).get_parameter(Name=args["name"], WithDecryption=decrypt)["Parameter"]
    # As the real provider: `value` is a secret whatever it is, `insecureValue` is the same text for who knows better.
    open_value = found["Value"] if found["Type"] != "SecureString" else ""
    return {
        "arn": found["ARN"],
        "id": args["name"],
        "insecureValue": open_value,
        "name": found["Name"],
        "region": region,
        "type": found["Type"],
        "value": secret(found["Value"]),
        "version": found["Version"],
        "withDecryption": decrypt,
    }


def get_ami(call: Call, args: Values) -> Values:
    region = _region(call, args)
    given: dict[str, Any] = {"Filters": _filters(args)} if args.get("filters") else {}
    if args.get("owners"):
        given["Owners"] = args["owners"]
    images = state_of(call).client("ec2", region).describe_images(**given)["Images"]
    if args.get("nameRegex"):
        pattern = re.compile(args["nameRegex"])
        images = [image for image in images if pattern.search(image.get("Name", ""))]
    if not images:
        raise ProviderError("Your query returned no results. Please change your search criteria and try again.")
    if len(images) > 1 and not args.get("mostRecent"):
        raise ProviderError(
            "Your query returned more than one result. Please try a more specific search criteria, or set"
            " `most_recent` attribute to true."
        )
    image = max(images, key=lambda item: str(item.get("CreationDate", "")))
    ebs = image["BlockDeviceMappings"][0]["Ebs"]
    return {
        **{key: args[key] for key in ("filters", "owners", "mostRecent", "nameRegex") if key in args},
        "architecture": image["Architecture"],
        "arn": f"arn:aws:ec2:{region}::image/{image['ImageId']}",
        "blockDeviceMappings": [
            {"deviceName": image["RootDeviceName"], "noDevice": "", "virtualName": ""}
            | {"ebs": {"snapshot_id": ebs.get("SnapshotId", ""), "volume_size": str(ebs.get("VolumeSize", ""))}}
        ],
        "bootMode": image.get("BootMode", ""),
        "creationDate": image.get("CreationDate", ""),
        "deprecationTime": "",
        "description": image.get("Description", ""),
        "enaSupport": True,
        "hypervisor": image.get("Hypervisor", "xen"),
        "id": image["ImageId"],
        "imageId": image["ImageId"],
        "imageLocation": image.get("ImageLocation", ""),
        "imageOwnerAlias": image.get("ImageOwnerAlias", ""),
        "imageType": image.get("ImageType", "machine"),
        "imdsSupport": "",
        "kernelId": "",
        "name": image.get("Name", ""),
        "ownerId": image["OwnerId"],
        "platform": "",
        "platformDetails": "Linux/UNIX",
        "productCodes": [],
        "public": bool(image.get("Public")),
        "ramdiskId": "",
        "region": region,
        "rootDeviceName": image["RootDeviceName"],
        "rootDeviceType": image["RootDeviceType"],
        "rootSnapshotId": ebs.get("SnapshotId", ""),
        "sriovNetSupport": "simple",
        "state": image["State"],
        "stateReason": {"code": "UNSET", "message": "UNSET"},
        "tags": {},
        "tpmSupport": "",
        "usageOperation": "RunInstances",
        "virtualizationType": image["VirtualizationType"],
    }


def get_instance_type(call: Call, args: Values) -> Values:
    region = _region(call, args)
    wanted = args["instanceType"]
    found = (
        state_of(call)
        .client("ec2", region)
        .describe_instance_types(Filters=[{"Name": "instance-type", "Values": [wanted]}])["InstanceTypes"]
    )
    if not found:
        raise ProviderError(f"reading EC2 Instance Type ({wanted}): couldn't find resource")
    kind = found[0]
    gpus = kind.get("GpuInfo", {}).get("Gpus", [])
    return {
        "id": wanted,
        "instanceType": wanted,
        "region": region,
        "defaultVcpus": kind["VCpuInfo"]["DefaultVCpus"],
        "memorySize": kind["MemoryInfo"]["SizeInMiB"],
        "supportedArchitectures": kind.get("ProcessorInfo", {}).get("SupportedArchitectures", []),
        "currentGeneration": bool(kind.get("CurrentGeneration")),
        "gpuses": [
            {
                "count": gpu.get("Count"),
                "manufacturer": gpu.get("Manufacturer"),
                "memorySize": gpu.get("MemoryInfo", {}).get("SizeInMiB"),
                "name": gpu.get("Name"),
            }
            for gpu in gpus
        ],
        "totalGpuMemory": kind.get("GpuInfo", {}).get("TotalGpuMemoryInMiB", 0),
    }


def get_instance_type_offerings(call: Call, args: Values) -> Values:
    region = _region(call, args)
    where = args.get("locationType") or "region"
    ec2 = state_of(call).client("ec2", region)
    found = ec2.describe_instance_type_offerings(LocationType=where, Filters=_filters(args))["InstanceTypeOfferings"]
    found.sort(key=lambda item: (item["InstanceType"], item["Location"]))
    return {
        **{key: args[key] for key in ("filters", "locationType") if key in args},
        "id": region,
        "instanceTypes": [item["InstanceType"] for item in found],
        "locationTypes": [item["LocationType"] for item in found],
        "locations": [item["Location"] for item in found],
        "region": region,
    }


def get_availability_zones(call: Call, args: Values) -> Values:
    region = _region(call, args)
    zones = state_of(call).client("ec2", region).describe_availability_zones()["AvailabilityZones"]
    zones = [
        zone
        for zone in sorted(zones, key=lambda item: str(item["ZoneName"]))
        if zone["ZoneName"] not in (args.get("excludeNames") or [])
        and zone["ZoneId"] not in (args.get("excludeZoneIds") or [])
        and args.get("state") in (None, zone["State"])
    ]
    return {
        **{key: value for key, value in args.items() if key != "region"},
        "groupNames": [region],
        "id": region,
        "names": [zone["ZoneName"] for zone in zones],
        "region": region,
        "zoneIds": [zone["ZoneId"] for zone in zones],
    }


def get_caller_identity(call: Call, args: Values) -> Values:
    state = state_of(call)
    caller = state.client("sts", state.region).get_caller_identity()
    return {
        "accountId": caller["Account"],
        "arn": caller["Arn"],
        "id": caller["Account"],
        "userId": caller["UserId"],
    }


def get_region(call: Call, args: Values) -> Values:
    region = args.get("name") or _region(call, args)
    return {
        "description": DESCRIPTIONS.get(region, region),
        "endpoint": f"ec2.{region}.amazonaws.com",
        "id": region,
        "name": region,
        "region": region,
    }


def get_partition(call: Call, args: Values) -> Values:
    return {"dnsSuffix": "amazonaws.com", "id": "aws", "partition": "aws", "reverseDnsPrefix": "com.amazonaws"}


FUNCTIONS: Mapping[str, Function] = {
    "aws:ssm/getParameter:getParameter": get_parameter,
    "aws:ec2/getAmi:getAmi": get_ami,
    "aws:ec2/getInstanceType:getInstanceType": get_instance_type,
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": get_instance_type_offerings,
    "aws:index/getAvailabilityZones:getAvailabilityZones": get_availability_zones,
    "aws:index/getCallerIdentity:getCallerIdentity": get_caller_identity,
    "aws:index/getRegion:getRegion": get_region,
    "aws:index/getPartition:getPartition": get_partition,
}
