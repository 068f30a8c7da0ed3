"""Interfaces and addresses: aws.ec2.NetworkInterface, Eip, EipAssociation."""

from __future__ import annotations

from typing import Any

from deployer.sandbox.aws.resource import AwsResource, tags_of
from deployer.sandbox.provider_base import Call, Values


class NetworkInterface(AwsResource):
    token, kind = "aws:ec2/networkInterface:NetworkInterface", "ec2:network-interface"
    label, tag_type = "EC2 Network Interface", "network-interface"
    inputs = frozenset(
        {"subnetId", "securityGroups", "description", "privateIp", "privateIps", "sourceDestCheck", "interfaceType"}
        | {"region", "tags"}
    )
    required = ("subnetId",)
    defaults = {"sourceDestCheck": True}
    replace_on = frozenset({"subnetId", "interfaceType", "privateIp", "privateIps"})
    sets = frozenset({"securityGroups", "privateIps"})
    optional = frozenset({"privateIp", "privateIps", "interfaceType", "description"})
    outputs = (
        "arn",
        "macAddress",
        "outpostArn",
        "ownerId",
        "privateDnsName",
        "privateIp",
        "privateIps",
        "privateIpsCount",
        "privateIpLists",
        "securityGroups",
        "interfaceType",
    )

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        given: dict[str, Any] = {}
        if inputs.get("securityGroups"):
            given["Groups"] = inputs["securityGroups"]
        if address := inputs.get("privateIp") or (inputs.get("privateIps") or [None])[0]:
            given["PrivateIpAddress"] = address
        if inputs.get("description"):
            given["Description"] = inputs["description"]
        made = ec2.create_network_interface(
            SubnetId=inputs["subnetId"], ClientToken=call.attempt, TagSpecifications=tags, **given
        )
        return str(made["NetworkInterface"]["NetworkInterfaceId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        wanted = news.get("securityGroups")
        if wanted and sorted(wanted) != sorted(live["securityGroups"]):
            ec2.modify_network_interface_attribute(NetworkInterfaceId=resource_id, Groups=wanted)
        if bool(news.get("sourceDestCheck", True)) != live["sourceDestCheck"]:
            ec2.modify_network_interface_attribute(
                NetworkInterfaceId=resource_id, SourceDestCheck={"Value": bool(news.get("sourceDestCheck", True))}
            )
        if not created and (news.get("description") or "") != live["description"]:
            ec2.modify_network_interface_attribute(
                NetworkInterfaceId=resource_id, Description={"Value": news.get("description") or ""}
            )

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        eni = ec2.describe_network_interfaces(NetworkInterfaceIds=[resource_id])["NetworkInterfaces"][0]
        every = [item["PrivateIpAddress"] for item in eni["PrivateIpAddresses"]]
        return {
            "arn": self.arn(call, state, f"network-interface/{resource_id}"),
            "description": eni.get("Description", ""),
            "interfaceType": eni.get("InterfaceType", "interface"),
            "ipv4PrefixCount": 0,
            "ipv4Prefixes": [],
            "ipv6AddressCount": 0,
            "ipv6Addresses": [],
            "macAddress": eni["MacAddress"],
            "outpostArn": "",
            "ownerId": eni["OwnerId"],
            "privateDnsName": eni.get("PrivateDnsName", ""),
            "privateIp": eni["PrivateIpAddress"],
            "privateIpLists": every,
            "privateIps": every,
            "privateIpsCount": len(every) - 1,
            "securityGroups": sorted(group["GroupId"] for group in eni["Groups"]),
            "sourceDestCheck": bool(eni["SourceDestCheck"]),
            "subnetId": eni["SubnetId"],
            "tagsAll": tags_of(eni),
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        ec2.delete_network_interface(NetworkInterfaceId=resource_id)


class Eip(AwsResource):
    token, kind, label, tag_type = "aws:ec2/eip:Eip", "ec2:elastic-ip", "EC2 EIP", "elastic-ip"
    inputs = frozenset(
        {"domain", "instance", "networkInterface", "associateWithPrivateIp", "publicIpv4Pool", "networkBorderGroup"}
        | {"region", "tags"}
    )
    replace_on = frozenset({"domain", "publicIpv4Pool", "networkBorderGroup"})
    optional = frozenset({"publicIpv4Pool", "networkBorderGroup"})
    outputs = (
        "allocationId",
        "arn",
        "associationId",
        "carrierIp",
        "customerOwnedIp",
        "domain",
        "networkBorderGroup",
        "privateDns",
        "privateIp",
        "ptrRecord",
        "publicDns",
        "publicIp",
        "publicIpv4Pool",
    )
    not_read = frozenset({"associateWithPrivateIp"})

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        made = ec2.allocate_address(Domain=inputs.get("domain") or "vpc", TagSpecifications=tags)
        return str(made["AllocationId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        address = ec2.describe_addresses(AllocationIds=[resource_id])["Addresses"][0]
        interface, instance = news.get("networkInterface") or "", news.get("instance") or ""
        if not interface and not instance:
            return  # an association made by an EipAssociation is not this one's to end
        fits = (interface and address.get("NetworkInterfaceId") == interface) or (
            instance and not interface and address.get("InstanceId") == instance
        )
        if fits:
            return
        if address.get("AssociationId"):
            ec2.disassociate_address(AssociationId=address["AssociationId"])
        target = {"NetworkInterfaceId": interface} if interface else {"InstanceId": instance}
        if news.get("associateWithPrivateIp"):
            target["PrivateIpAddress"] = news["associateWithPrivateIp"]
        ec2.associate_address(AllocationId=resource_id, **target)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        address = ec2.describe_addresses(AllocationIds=[resource_id])["Addresses"][0]
        region, public_ip = self.region(call, state), address["PublicIp"]
        private_ip = address.get("PrivateIpAddress", "")
        zone = "compute-1" if region == "us-east-1" else f"{region}.compute"
        inner = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
        importing = "domain" not in state and "publicIp" not in state
        out: Values = {
            "allocationId": resource_id,
            "arn": self.arn(call, state, f"elastic-ip/{resource_id}"),
            "associationId": address.get("AssociationId", ""),
            "carrierIp": "",
            "customerOwnedIp": "",
            "customerOwnedIpv4Pool": "",
            "domain": address.get("Domain", "vpc"),
            "networkBorderGroup": address.get("NetworkBorderGroup") or region,
            "privateDns": f"ip-{private_ip.replace('.', '-')}.{inner}" if private_ip else "",
            "privateIp": private_ip,
            "ptrRecord": "",
            "publicDns": f"ec2-{public_ip.replace('.', '-')}.{zone}.amazonaws.com",
            "publicIp": public_ip,
            "publicIpv4Pool": address.get("PublicIpv4Pool") or "amazon",
            "tagsAll": tags_of(address),
        }
        # An address is at an interface, and through it at a machine. Told is the way that the program asked for.
        interface, instance = address.get("NetworkInterfaceId") or "", address.get("InstanceId") or ""
        if state.get("instance") and not state.get("networkInterface"):
            out["instance"] = instance
        elif importing or state.get("networkInterface"):
            out["networkInterface"] = interface
        return out

    def update(self, call: Call, resource_id: str, olds: Values, news: Values, old_inputs: Values) -> Values:
        had = old_inputs.get("networkInterface") or old_inputs.get("instance")
        if had and not news.get("networkInterface") and not news.get("instance"):
            ec2 = self.ec2(call, news)
            address = ec2.describe_addresses(AllocationIds=[resource_id])["Addresses"][0]
            if address.get("AssociationId"):
                ec2.disassociate_address(AssociationId=address["AssociationId"])
        return super().update(call, resource_id, olds, news, old_inputs)

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        address = ec2.describe_addresses(AllocationIds=[resource_id])["Addresses"][0]
        if address.get("AssociationId"):
            ec2.disassociate_address(AssociationId=address["AssociationId"])
        ec2.release_address(AllocationId=resource_id)


class EipAssociation(AwsResource):
    token, kind = "aws:ec2/eipAssociation:EipAssociation", "ec2:elastic-ip-association"
    label = "EC2 EIP Association"
    inputs = frozenset(
        {"allocationId", "allowReassociation", "instanceId", "networkInterfaceId", "privateIpAddress", "region"}
    )
    required = ("allocationId",)
    replace_on = inputs - {"region"}
    optional = frozenset({"instanceId", "networkInterfaceId", "privateIpAddress"})
    outputs = ("publicIp", "privateIpAddress", "instanceId", "networkInterfaceId")
    not_read = frozenset({"allowReassociation"})

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        given: dict[str, Any] = {
            parameter: inputs[name]
            for name, parameter in (
                ("networkInterfaceId", "NetworkInterfaceId"),
                ("instanceId", "InstanceId"),
                ("privateIpAddress", "PrivateIpAddress"),
            )
            if inputs.get(name)
        }
        if inputs.get("allowReassociation"):
            given["AllowReassociation"] = True
        return str(ec2.associate_address(AllocationId=inputs["allocationId"], **given)["AssociationId"])

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        found = ec2.describe_addresses(Filters=[{"Name": "association-id", "Values": [resource_id]}])["Addresses"]
        if not found:
            return None
        address = found[0]
        return {
            "allocationId": address["AllocationId"],
            "instanceId": address.get("InstanceId", ""),
            "networkInterfaceId": address.get("NetworkInterfaceId", ""),
            "privateIpAddress": address.get("PrivateIpAddress", ""),
            "publicIp": address["PublicIp"],
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if self.describe(call, ec2, resource_id, state) is not None:
            ec2.disassociate_address(AssociationId=resource_id)
