"""aws.ec2.Instance."""

from __future__ import annotations

import base64
from typing import Any

from deployer.sandbox.aws.instance_launch import DISK, METADATA, disk_tags, raw_user_data, request
from deployer.sandbox.aws.resource import AwsResource, tag_list, tags_of
from deployer.sandbox.provider_base import Call, ProviderError, Values
from deployer.sandbox.provider_values import Change, has_unknown


class Instance(AwsResource):
    token, kind, label, tag_type = "aws:ec2/instance:Instance", "ec2:instance", "EC2 Instance", "instance"
    inputs = frozenset(
        {"ami", "associatePublicIpAddress", "availabilityZone", "disableApiStop", "disableApiTermination"}
        | {"ebsOptimized", "forceDestroy", "getPasswordData", "instanceInitiatedShutdownBehavior"}
        | {"instanceMarketOptions", "instanceType", "keyName", "metadataOptions", "monitoring"}
        | {"primaryNetworkInterface", "privateIp", "region", "rootBlockDevice", "sourceDestCheck", "subnetId", "tags"}
        | {"tenancy", "userData", "userDataBase64", "userDataReplaceOnChange", "volumeTags", "vpcSecurityGroupIds"}
    )
    required = ("ami", "instanceType")
    defaults = {"forceDestroy": False, "getPasswordData": False, "userDataReplaceOnChange": False}
    # As in the real provider (terraform-provider-aws, aws_instance): what makes another machine. The rest changes in
    # place, the type and the user data of a running machine by stop, modify, start.
    replace_on = frozenset(
        {"ami", "associatePublicIpAddress", "availabilityZone", "instanceMarketOptions", "keyName"}
        | {"primaryNetworkInterface", "privateIp", "subnetId", "tenancy"}
        | {"rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId", "rootBlockDevice.deviceName"}
    )
    sets = frozenset({"vpcSecurityGroupIds"})
    outputs = (
        "arn",
        "availabilityZone",
        "associatePublicIpAddress",
        "cpuOptions",
        "disableApiStop",
        "disableApiTermination",
        "ebsBlockDevices",
        "ebsOptimized",
        "instanceInitiatedShutdownBehavior",
        "instanceLifecycle",
        "instanceState",
        "keyName",
        "metadataOptions",
        "monitoring",
        "outpostArn",
        "passwordData",
        "primaryNetworkInterfaceId",
        "privateDns",
        "privateIp",
        "publicDns",
        "publicIp",
        "rootBlockDevice",
        "securityGroups",
        "spotInstanceRequestId",
        "subnetId",
        "tenancy",
        "vpcSecurityGroupIds",
    )
    optional = frozenset(
        {"associatePublicIpAddress", "availabilityZone", "disableApiStop", "disableApiTermination", "ebsOptimized"}
        | {"instanceInitiatedShutdownBehavior", "metadataOptions", "monitoring", "primaryNetworkInterface"}
        | {"privateIp", "rootBlockDevice", "sourceDestCheck", "subnetId", "tenancy", "vpcSecurityGroupIds"}
    )
    not_read = frozenset({"forceDestroy", "userDataReplaceOnChange", "volumeTags", "instanceMarketOptions"})

    def check(self, call: Call, news: Values, olds: Values) -> tuple[Values, list[tuple[str, str]]]:
        filled, failures = super().check(call, news, olds)
        if filled.get("primaryNetworkInterface"):
            failures += [
                (name, f'"{name}": conflicts with primaryNetworkInterface')
                for name in ("subnetId", "vpcSecurityGroupIds", "associatePublicIpAddress", "privateIp")
                if filled.get(name) is not None
            ]
        if filled.get("userData") is not None and filled.get("userDataBase64") is not None:
            failures.append(("userData", '"userData": conflicts with userDataBase64'))
        return filled, failures

    # -- differences -------------------------------------------------------------------------------------------
    def differences(self, call: Call, old_inputs: Values, news: Values, olds: Values) -> list[Change]:
        found = super().differences(call, old_inputs, news, olds)
        types = next((change for change in found if change.path == "instanceType"), None)
        if types is not None and call.state is not None and types.old and not has_unknown(types.new):
            news["__otherArchitecture"] = not self._same_architecture(call, news, str(types.old), str(types.new))
        return found

    def _same_architecture(self, call: Call, values: Values, old: str, new: str) -> bool:
        known = self.ec2(call, values).describe_instance_types(
            Filters=[{"Name": "instance-type", "Values": [old, new]}]
        )["InstanceTypes"]
        by_type = {
            item["InstanceType"]: set(item.get("ProcessorInfo", {}).get("SupportedArchitectures", [])) for item in known
        }
        return old not in by_type or new not in by_type or bool(by_type[old] & by_type[new])

    def replaces(self, change: Change, old_inputs: Values, news: Values) -> bool:
        if change.top in ("userData", "userDataBase64"):
            return bool(news.get("userDataReplaceOnChange"))
        if change.path == "instanceType":
            return bool(news.get("__otherArchitecture"))
        return super().replaces(change, old_inputs, news)

    # -- making ------------------------------------------------------------------------------------------------
    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        of_disk = {**self.all_tags(call, {"tags": None}), **disk_tags(inputs)}
        if of_disk:
            tags = [*tags, {"ResourceType": "volume", "Tags": tag_list(of_disk)}]
        answer = ec2.run_instances(
            MinCount=1, MaxCount=1, ClientToken=call.attempt, TagSpecifications=tags, **request(ec2, inputs)
        )
        return str(answer["Instances"][0]["InstanceId"])

    # -- changing ----------------------------------------------------------------------------------------------
    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        if not created:
            self._change_stopped(call, ec2, resource_id, news, live)
            self._change_running(ec2, resource_id, news, live)
            self._change_disk(call, ec2, news, live)
        if news.get("sourceDestCheck") is not None and bool(news["sourceDestCheck"]) != live["sourceDestCheck"]:
            ec2.modify_network_interface_attribute(
                NetworkInterfaceId=live["primaryNetworkInterfaceId"],
                SourceDestCheck={"Value": bool(news["sourceDestCheck"])},
            )
        call.until(lambda: self._state(ec2, resource_id) in ("running", "stopped"))

    @staticmethod
    def _state(ec2: Any, resource_id: str) -> str:
        found = ec2.describe_instances(InstanceIds=[resource_id])["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"])

    def _change_stopped(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values) -> None:
        """What EC2 changes on a stopped machine only."""
        changed: list[dict[str, Any]] = []
        if news["instanceType"] != live["instanceType"]:
            changed.append({"InstanceType": {"Value": news["instanceType"]}})
        if raw_user_data(news) != raw_user_data(live):
            changed.append({"UserData": {"Value": raw_user_data(news)}})
        if news.get("ebsOptimized") is not None and bool(news["ebsOptimized"]) != live["ebsOptimized"]:
            changed.append({"EbsOptimized": {"Value": bool(news["ebsOptimized"])}})
        if not changed:
            return
        was_running = live["instanceState"] == "running"
        if was_running:
            ec2.stop_instances(InstanceIds=[resource_id])
            call.until(lambda: self._state(ec2, resource_id) == "stopped")
        for change in changed:
            ec2.modify_instance_attribute(InstanceId=resource_id, **change)
        if was_running:
            ec2.start_instances(InstanceIds=[resource_id])
            call.until(lambda: self._state(ec2, resource_id) == "running")

    @staticmethod
    def _change_running(ec2: Any, resource_id: str, news: Values, live: Values) -> None:
        for name in ("disableApiTermination", "disableApiStop"):
            if news.get(name) is not None and bool(news[name]) != live[name]:
                parameter = name[0].upper() + name[1:]
                ec2.modify_instance_attribute(InstanceId=resource_id, **{parameter: {"Value": bool(news[name])}})
        behaviour = news.get("instanceInitiatedShutdownBehavior")
        if behaviour and behaviour != live["instanceInitiatedShutdownBehavior"]:
            ec2.modify_instance_attribute(
                InstanceId=resource_id, InstanceInitiatedShutdownBehavior={"Value": behaviour}
            )
        groups = news.get("vpcSecurityGroupIds")
        if groups and sorted(groups) != sorted(live["vpcSecurityGroupIds"]):
            ec2.modify_instance_attribute(InstanceId=resource_id, Groups=groups)
        options = {k: v for k, v in (news.get("metadataOptions") or {}).items() if v is not None}
        if options and any(live["metadataOptions"].get(k) != v for k, v in options.items()):
            merged = {**live["metadataOptions"], **options}
            ec2.modify_instance_metadata_options(
                InstanceId=resource_id, **{parameter: merged[name] for name, parameter in METADATA.items()}
            )
        if news.get("monitoring") is not None and bool(news["monitoring"]) != live["monitoring"]:
            raise ProviderError("the sandbox does not emulate a change of an instance's monitoring")

    def _change_disk(self, call: Call, ec2: Any, news: Values, live: Values) -> None:
        disk, had = news.get("rootBlockDevice") or {}, live["rootBlockDevice"]
        changed = {
            {"VolumeSize": "Size"}.get(parameter, parameter): disk[name]
            for name, parameter in DISK.items()
            if disk.get(name) is not None and disk[name] != had[name]
        }
        if changed:
            ec2.modify_volume(VolumeId=had["volumeId"], **changed)
        if disk.get("deleteOnTermination") not in (None, had["deleteOnTermination"]):
            ec2.modify_instance_attribute(
                InstanceId=live["id"],
                BlockDeviceMappings=[
                    {"DeviceName": had["deviceName"], "Ebs": {"DeleteOnTermination": disk["deleteOnTermination"]}}
                ],
            )
        wanted = {**self.all_tags(call, {"tags": None}), **disk_tags(news)}
        self._settle_tags(ec2, had["volumeId"], had["tagsAll"], wanted)

    # -- telling -----------------------------------------------------------------------------------------------
    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        found = ec2.describe_instances(InstanceIds=[resource_id])["Reservations"]
        machine: dict[str, Any] = found[0]["Instances"][0] if found else {"State": {"Name": "terminated"}}
        if machine["State"]["Name"] == "terminated":
            return None
        primary = next(eni for eni in machine["NetworkInterfaces"] if eni["Attachment"]["DeviceIndex"] == 0)

        def attribute(name: str) -> Any:
            key = name[0].upper() + name[1:]
            return ec2.describe_instance_attribute(InstanceId=resource_id, Attribute=name)[key].get("Value")

        options = machine.get("MetadataOptions", {})
        vpc = ec2.describe_vpc_attribute(VpcId=machine["VpcId"], Attribute="enableDnsHostnames")
        named = vpc["EnableDnsHostnames"]["Value"] and machine.get("PublicIpAddress")
        out: Values = {
            "id": resource_id,
            "ami": machine["ImageId"],
            "arn": self.arn(call, state, f"instance/{resource_id}"),
            "associatePublicIpAddress": bool(machine.get("PublicIpAddress")),
            "availabilityZone": machine["Placement"]["AvailabilityZone"],
            "disableApiStop": bool(attribute("disableApiStop")),
            "disableApiTermination": bool(attribute("disableApiTermination")),
            "ebsBlockDevices": [],
            "ebsOptimized": bool(machine.get("EbsOptimized")),
            "ephemeralBlockDevices": [],
            "hibernation": False,
            "instanceInitiatedShutdownBehavior": attribute("instanceInitiatedShutdownBehavior"),
            "instanceLifecycle": machine.get("InstanceLifecycle", ""),
            "instanceState": machine["State"]["Name"],
            "instanceType": machine["InstanceType"],
            "keyName": machine.get("KeyName", ""),
            "metadataOptions": {name: options.get(parameter) for name, parameter in METADATA.items()},
            "monitoring": machine["Monitoring"]["State"] in ("enabled", "pending"),
            "outpostArn": "",
            "passwordData": "",
            "primaryNetworkInterface": {
                "networkInterfaceId": primary["NetworkInterfaceId"],
                "deleteOnTermination": bool(primary["Attachment"]["DeleteOnTermination"]),
            },
            "primaryNetworkInterfaceId": primary["NetworkInterfaceId"],
            "privateDns": machine.get("PrivateDnsName", ""),
            "privateIp": machine["PrivateIpAddress"],
            "publicDns": machine.get("PublicDnsName", "") if named else "",
            "publicIp": machine.get("PublicIpAddress", ""),
            "rootBlockDevice": self._root(call, ec2, machine, state),
            "secondaryPrivateIps": [],
            "securityGroups": sorted(group["GroupName"] for group in primary["Groups"]),
            "sourceDestCheck": bool(primary["SourceDestCheck"]),
            "spotInstanceRequestId": machine.get("SpotInstanceRequestId", ""),
            "subnetId": machine["SubnetId"],
            "tagsAll": tags_of(machine),
            "tenancy": machine["Placement"].get("Tenancy", "default"),
            "vpcSecurityGroupIds": sorted(group["GroupId"] for group in primary["Groups"]),
        }
        encoded = attribute("userData") or ""
        if state.get("userDataBase64"):
            out["userDataBase64"] = encoded
        elif encoded:
            out["userData"] = base64.b64decode(encoded).decode("utf-8", "replace")
        elif state.get("userData"):
            out["userData"] = ""
        return out

    def _root(self, call: Call, ec2: Any, machine: dict[str, Any], state: Values) -> Values:
        name = machine["RootDeviceName"]
        device = next((d["Ebs"] for d in machine["BlockDeviceMappings"] if d["DeviceName"] == name), None)
        if device is None:
            return {"deviceName": name, "tagsAll": {}}
        volume = ec2.describe_volumes(VolumeIds=[device["VolumeId"]])["Volumes"][0]
        tags = tags_of(volume)
        return {
            "deleteOnTermination": bool(device["DeleteOnTermination"]),
            "deviceName": name,
            "encrypted": bool(volume["Encrypted"]),
            "iops": volume.get("Iops") or 0,
            "kmsKeyId": volume.get("KmsKeyId", ""),
            "tags": self._own_tags(call, tags, disk_tags(state)),
            "tagsAll": tags,
            "throughput": volume.get("Throughput") or 0,
            "volumeId": device["VolumeId"],
            "volumeSize": volume["Size"],
            "volumeType": volume["VolumeType"],
        }

    def imported(self, wanted: Values, outputs: Values) -> Values:
        interface = outputs["primaryNetworkInterface"]
        if interface["deleteOnTermination"]:  # it came with the machine: a program says where, not which
            return {**wanted, **{name: outputs[name] for name in ("subnetId", "vpcSecurityGroupIds")}}
        wanted["primaryNetworkInterface"] = {"networkInterfaceId": interface["networkInterfaceId"]}
        return wanted

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if state.get("forceDestroy"):
            for name in ("DisableApiTermination", "DisableApiStop"):
                ec2.modify_instance_attribute(InstanceId=resource_id, **{name: {"Value": False}})
        ec2.terminate_instances(InstanceIds=[resource_id])
        call.until(lambda: self._state(ec2, resource_id) == "terminated")
