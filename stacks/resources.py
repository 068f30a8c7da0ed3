"""What a stack will hold, told without an engine: for plans, tests and the documentation."""

from __future__ import annotations

from dataclasses import dataclass

from stacks.args import ParticipantArgs
from stacks.cloud_checks import check_for
from stacks.egress import egress_rules
from stacks.images import image_for
from stacks.names import Cloud, Stage, logical_name
from stacks.rules import INGRESS_DENY, ingress_rules


@dataclass(frozen=True)
class PlannedResource:
    """A resource by its Pulumi type and its logical name. `billed`: it costs money for as long as it exists."""

    type: str
    name: str
    billed: bool = False


_AWS_ADDRESS = (
    ("aws:ec2/vpc:Vpc", "vpc"),
    ("aws:ec2/internetGateway:InternetGateway", "gateway"),
    ("aws:ec2/subnet:Subnet", "subnet"),
    ("aws:ec2/routeTable:RouteTable", "routes"),
    ("aws:ec2/route:Route", "default-route"),
    ("aws:ec2/routeTableAssociation:RouteTableAssociation", "subnet-routes"),
    ("aws:ec2/securityGroup:SecurityGroup", "firewall"),
    ("aws:ec2/networkInterface:NetworkInterface", "interface"),
    ("aws:ec2/eip:Eip", "address"),
)
_AWS_MACHINE = (
    ("aws:ec2/keyPair:KeyPair", "key"),
    ("aws:ec2/instance:Instance", "vm"),
    ("aws:ebs/volume:Volume", "state"),
    ("aws:ec2/volumeAttachment:VolumeAttachment", "state-attachment"),
)
_AZURE_ADDRESS = (
    ("azure-native:resources:ResourceGroup", "rg"),
    ("azure-native:network:VirtualNetwork", "vnet"),
    ("azure-native:network:NetworkSecurityGroup", "firewall"),
    ("azure-native:network:Subnet", "subnet"),
    ("azure-native:network:PublicIPAddress", "address"),
    ("azure-native:network:NetworkInterface", "interface"),
)
_AZURE_MACHINE = (
    ("azure-native:compute:Disk", "state"),
    ("azure-native:compute:VirtualMachine", "vm"),
)
# what is not made where the account's own network is used
_OWN_NETWORK = frozenset({"vpc", "gateway", "subnet", "routes", "default-route", "subnet-routes", "vnet"})
_BILLED = frozenset({"vm", "state", "address"})


def describe(cloud: Cloud, args: ParticipantArgs, stage: Stage = "full") -> list[PlannedResource]:
    """The resources that the program makes in the cloud, in the order in which it names them.

    The stack's own records (stack, component, provider) are not resources of the cloud and not listed.
    """
    check_for(cloud, args)
    rules = ingress_rules(args)
    if cloud == "aws":
        kinds = list(_AWS_ADDRESS)
        if stage == "full":
            outwards = egress_rules(cloud, args)
            kinds += [("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", rule.kind) for rule in outwards]
            kinds += [("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", rule.aws_kind) for rule in rules]
            kinds += _AWS_MACHINE
    else:
        kinds = list(_AZURE_ADDRESS)
        if stage == "full":
            kinds += [("azure-native:network:SecurityRule", rule.azure_kind) for rule in rules]
            if not args.existing.security_group:
                kinds.append(("azure-native:network:SecurityRule", INGRESS_DENY))
            if args.egress_restricted:
                ends = [*(rule.kind for rule in egress_rules(cloud, args)), "egress-deny"]
                kinds += [("azure-native:network:SecurityRule", kind) for kind in ends]
            kinds += _AZURE_MACHINE
            if image_for(cloud, args).driver_extension:
                kinds.append(("azure-native:compute:VirtualMachineExtension", "gpu-driver"))
            if args.deallocate_at:
                kinds.append(("azure-native:devtestlab:GlobalSchedule", "shutdown"))
            if args.self_deallocate:
                kinds.append(("azure-native:authorization:RoleAssignment", "deallocate-role"))
    existing = args.existing
    own = _OWN_NETWORK if existing.subnet else frozenset[str]()
    own |= {"firewall"} if existing.security_group else frozenset()
    own |= {"address"} if existing.private else frozenset()
    kinds = [(kind, end) for kind, end in kinds if end not in own]
    return [PlannedResource(kind, logical_name(args.participant, end), end in _BILLED) for kind, end in kinds]
