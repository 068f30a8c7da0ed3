"""Networks: aws.ec2.Vpc, Subnet, InternetGateway."""

from __future__ import annotations

from typing import Any

from deployer.sandbox.aws.resource import AwsResource, tags_of
from deployer.sandbox.provider_base import Call, Values


class Vpc(AwsResource):
    token, kind, label, tag_type = "aws:ec2/vpc:Vpc", "ec2:vpc", "EC2 VPC", "vpc"
    inputs = frozenset(
        {"cidrBlock", "enableDnsHostnames", "enableDnsSupport", "enableNetworkAddressUsageMetrics"}
        | {"instanceTenancy", "region", "tags"}
    )
    required = ("cidrBlock",)
    defaults = {"enableDnsSupport": True, "instanceTenancy": "default"}
    replace_on = frozenset({"cidrBlock", "instanceTenancy"})
    outputs = (
        "arn",
        "defaultNetworkAclId",
        "defaultRouteTableId",
        "defaultSecurityGroupId",
        "dhcpOptionsId",
        "ipv6AssociationId",
        "mainRouteTableId",
        "ownerId",
    )
    switches = {
        "enableDnsSupport": "EnableDnsSupport",
        "enableDnsHostnames": "EnableDnsHostnames",
        "enableNetworkAddressUsageMetrics": "EnableNetworkAddressUsageMetrics",
    }

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        vpc = ec2.create_vpc(
            CidrBlock=inputs["cidrBlock"], InstanceTenancy=inputs["instanceTenancy"], TagSpecifications=tags
        )
        return str(vpc["Vpc"]["VpcId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        for name, parameter in self.switches.items():
            wanted = bool(news.get(name, False))
            if bool(live[name]) != wanted:
                ec2.modify_vpc_attribute(VpcId=resource_id, **{parameter: {"Value": wanted}})

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        vpc = ec2.describe_vpcs(VpcIds=[resource_id])["Vpcs"][0]
        here = [{"Name": "vpc-id", "Values": [resource_id]}]
        tables = ec2.describe_route_tables(Filters=here)["RouteTables"]
        main = next((t["RouteTableId"] for t in tables if any(a.get("Main") for a in t["Associations"])), None)
        groups = ec2.describe_security_groups(Filters=here)["SecurityGroups"]
        acls = ec2.describe_network_acls(Filters=here)["NetworkAcls"]
        switches = {
            name: ec2.describe_vpc_attribute(VpcId=resource_id, Attribute=name)[parameter]["Value"]
            for name, parameter in self.switches.items()
        }
        return {
            **switches,
            "arn": self.arn(call, state, f"vpc/{resource_id}"),
            "assignGeneratedIpv6CidrBlock": False,
            "cidrBlock": vpc["CidrBlock"],
            "defaultNetworkAclId": next((acl["NetworkAclId"] for acl in acls if acl.get("IsDefault")), ""),
            "defaultRouteTableId": main,
            "defaultSecurityGroupId": next((g["GroupId"] for g in groups if g["GroupName"] == "default"), ""),
            "dhcpOptionsId": vpc.get("DhcpOptionsId") or "default",
            "instanceTenancy": vpc.get("InstanceTenancy") or "default",
            "ipv6AssociationId": "",
            "ipv6CidrBlock": "",
            "ipv6CidrBlockNetworkBorderGroup": "",
            "ipv6IpamPoolId": "",
            "ipv6NetmaskLength": 0,
            "mainRouteTableId": main,
            "ownerId": vpc["OwnerId"],
            "tagsAll": tags_of(vpc),
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        ec2.delete_vpc(VpcId=resource_id)


class Subnet(AwsResource):
    token, kind, label, tag_type = "aws:ec2/subnet:Subnet", "ec2:subnet", "EC2 Subnet", "subnet"
    inputs = frozenset(
        {"vpcId", "cidrBlock", "availabilityZone", "availabilityZoneId", "mapPublicIpOnLaunch", "region", "tags"}
        | {"enableResourceNameDnsARecordOnLaunch"}
    )
    required = ("vpcId", "cidrBlock")
    defaults = {"mapPublicIpOnLaunch": False, "enableResourceNameDnsARecordOnLaunch": False}
    replace_on = frozenset({"vpcId", "cidrBlock", "availabilityZone", "availabilityZoneId"})
    optional = frozenset({"availabilityZone", "availabilityZoneId"})
    outputs = ("arn", "availabilityZone", "availabilityZoneId", "ownerId", "ipv6CidrBlockAssociationId")

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        where = {
            parameter: inputs[name]
            for name, parameter in (
                ("availabilityZone", "AvailabilityZone"),
                ("availabilityZoneId", "AvailabilityZoneId"),
            )
            if inputs.get(name)
        }
        subnet = ec2.create_subnet(
            VpcId=inputs["vpcId"], CidrBlock=inputs["cidrBlock"], TagSpecifications=tags, **where
        )
        return str(subnet["Subnet"]["SubnetId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        for name in ("mapPublicIpOnLaunch", "enableResourceNameDnsARecordOnLaunch"):
            wanted = bool(news.get(name, False))
            if bool(live[name]) != wanted:
                parameter = name[0].upper() + name[1:]
                ec2.modify_subnet_attribute(SubnetId=resource_id, **{parameter: {"Value": wanted}})

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        subnet = ec2.describe_subnets(SubnetIds=[resource_id])["Subnets"][0]
        names = subnet.get("PrivateDnsNameOptionsOnLaunch", {})
        return {
            "arn": self.arn(call, state, f"subnet/{resource_id}"),
            "assignIpv6AddressOnCreation": False,
            "availabilityZone": subnet["AvailabilityZone"],
            "availabilityZoneId": subnet.get("AvailabilityZoneId", ""),
            "cidrBlock": subnet["CidrBlock"],
            "customerOwnedIpv4Pool": "",
            "enableDns64": False,
            "enableLniAtDeviceIndex": 0,
            "enableResourceNameDnsARecordOnLaunch": bool(names.get("EnableResourceNameDnsARecord", False)),
            "enableResourceNameDnsAaaaRecordOnLaunch": False,
            "ipv6CidrBlock": "",
            "ipv6CidrBlockAssociationId": "",
            "ipv6Native": False,
            "mapCustomerOwnedIpOnLaunch": False,
            "mapPublicIpOnLaunch": bool(subnet.get("MapPublicIpOnLaunch")),
            "outpostArn": "",
            "ownerId": subnet["OwnerId"],
            "privateDnsHostnameTypeOnLaunch": names.get("HostnameType", "ip-name"),
            "tagsAll": tags_of(subnet),
            "vpcId": subnet["VpcId"],
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        ec2.delete_subnet(SubnetId=resource_id)


class InternetGateway(AwsResource):
    token, kind = "aws:ec2/internetGateway:InternetGateway", "ec2:internet-gateway"
    label, tag_type = "EC2 Internet Gateway", "internet-gateway"
    inputs = frozenset({"vpcId", "region", "tags"})
    outputs = ("arn", "ownerId", "vpcId")

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        made = ec2.create_internet_gateway(TagSpecifications=tags)
        return str(made["InternetGateway"]["InternetGatewayId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        wanted, had = news.get("vpcId") or "", live["vpcId"]
        if had and had != wanted:
            ec2.detach_internet_gateway(InternetGatewayId=resource_id, VpcId=had)
        if wanted and had != wanted:
            ec2.attach_internet_gateway(InternetGatewayId=resource_id, VpcId=wanted)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        gateway = ec2.describe_internet_gateways(InternetGatewayIds=[resource_id])["InternetGateways"][0]
        attached = gateway.get("Attachments") or [{}]
        return {
            "arn": self.arn(call, state, f"internet-gateway/{resource_id}"),
            "ownerId": gateway["OwnerId"],
            "tagsAll": tags_of(gateway),
            "vpcId": attached[0].get("VpcId", ""),
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        live = self.describe(call, ec2, resource_id, state) or {}
        if live.get("vpcId"):
            ec2.detach_internet_gateway(InternetGatewayId=resource_id, VpcId=live["vpcId"])
        ec2.delete_internet_gateway(InternetGatewayId=resource_id)
