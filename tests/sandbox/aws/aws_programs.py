"""A typical participant in AWS, as an engine makes it resource by resource."""

from __future__ import annotations

from typing import Any

from deployer.sandbox.provider_values import SECRET_KEY, SECRET_VALUE

from .aws_engine import Engine, Resource
from .conftest import UBUNTU, public_key

VPC, SUBNET = "aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet"

GATEWAY, TABLE, ROUTE = (
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/routeTable:RouteTable",
    "aws:ec2/route:Route",
)

ASSOCIATION, GROUP = "aws:ec2/routeTableAssociation:RouteTableAssociation", "aws:ec2/securityGroup:SecurityGroup"

INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"

EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"

INTERFACE, ADDRESS = "aws:ec2/networkInterface:NetworkInterface", "aws:ec2/eip:Eip"

ADDRESS_ASSOCIATION = "aws:ec2/eipAssociation:EipAssociation"

KEY, MACHINE, VOLUME = "aws:ec2/keyPair:KeyPair", "aws:ec2/instance:Instance", "aws:ebs/volume:Volume"

ATTACHMENT = "aws:ec2/volumeAttachment:VolumeAttachment"

ZONE = "eu-central-1b"

Program = dict[str, tuple[Resource, dict[str, Any]]]


def secret(value: Any) -> dict[str, Any]:
    return {SECRET_KEY: SECRET_VALUE, "value": value}


def participant(engine: Engine, **machine: Any) -> Program:
    """A typical participant: network, rules, interface, address, key, machine, volume."""
    made: Program = {}

    def make(token: str, name: str, **inputs: Any) -> str:
        made[name] = (engine.create(token, name, **inputs), inputs)
        return made[name][0].id

    ami = engine.invoke("aws:ssm/getParameter:getParameter", name=UBUNTU)["insecureValue"]
    vpc = make(VPC, "vpc", cidrBlock="10.8.0.0/16", enableDnsHostnames=True, enableDnsSupport=True, tags={"Name": "v"})
    subnet = make(SUBNET, "subnet", vpcId=vpc, cidrBlock="10.8.1.0/24", availabilityZone=ZONE)
    gateway = make(GATEWAY, "gateway", vpcId=vpc)
    table = make(TABLE, "table", vpcId=vpc)
    make(ROUTE, "route", routeTableId=table, destinationCidrBlock="0.0.0.0/0", gatewayId=gateway)
    make(ASSOCIATION, "association", routeTableId=table, subnetId=subnet)
    group = make(GROUP, "group", vpcId=vpc, description="a group", revokeRulesOnDelete=True)
    make(EGRESS, "egress", securityGroupId=group, ipProtocol="-1", cidrIpv4="0.0.0.0/0")
    ssh: dict[str, Any] = {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": "198.51.100.4/32"}
    make(INGRESS, "ssh", securityGroupId=group, description="ssh from admin", **ssh)
    eni = make(INTERFACE, "interface", subnetId=subnet, securityGroups=[group], description="the interface")
    make(ADDRESS, "address", domain="vpc", networkInterface=eni)
    key = make(KEY, "key", publicKey=public_key())
    given: dict[str, Any] = {
        "ami": ami,
        "instanceType": "m7i.large",
        "keyName": key,
        "instanceInitiatedShutdownBehavior": "stop",
        "metadataOptions": {"httpEndpoint": "enabled", "httpPutResponseHopLimit": 1, "httpTokens": "required"},
        "primaryNetworkInterface": {"networkInterfaceId": eni},
        "rootBlockDevice": {
            "deleteOnTermination": True,
            "encrypted": True,
            "volumeSize": 32,
            "volumeType": "gp3",
            "tags": {"Name": "root"},
        },
        "userData": secret("#cloud-config\n"),
    }
    vm = make(MACHINE, "vm", **{**given, **machine})
    volume = make(VOLUME, "volume", availabilityZone=ZONE, encrypted=True, size=20, type="gp3")
    make(ATTACHMENT, "attachment", deviceName="/dev/sdf", instanceId=vm, volumeId=volume)
    return made
