"""One participant on AWS: its own VPC, an address and a volume that outlive the machine, and the machine.

Property names as in pulumi-aws 7.51.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi_aws import ebs, ec2, ssm, vpc

from stacks.access import AwsAccess
from stacks.args import ParticipantArgs
from stacks.cloud_checks import check_for
from stacks.cloud_init import user_data
from stacks.egress import egress_rules
from stacks.images import image_for, os_disk_gib
from stacks.names import Stage, aws_name, common_tags, key_pair_name, logical_name, machine_tags, resource_tags
from stacks.rules import ingress_rules
from stacks.state_volume import AWS_DEVICE

NETWORK = "10.42.0.0/16"
COMPONENT_TYPE = "fedspan:stacks:AwsParticipant"


def subnet_cidr(zone: str | None) -> str:
    """The subnet's addresses: each zone has its own, so that a move to another zone can make the new subnet first.

    Another subnet takes another interface, to which the Elastic IP goes over: the address stays.
    """
    return f"10.42.{ord(zone[-1]) - ord('a') + 1 if zone else 0}.0/24"


# The provider's own limits are 10 to 20 minutes; capacity can take longer to be found or refused.
_MACHINE_TIMEOUTS = pulumi.CustomTimeouts(create="20m", update="20m", delete="20m")


def aws_provider(args: ParticipantArgs, access: AwsAccess) -> aws.Provider:
    """The stack's only provider, explicit: its region, its account, the common tags on all that it makes."""
    endpoints = dict(access.endpoints or {})
    options: dict[str, Any] = {}
    if endpoints:
        # STS is asked for the account in any case: the identity check holds for these endpoints too.
        options = {
            "endpoints": [aws.ProviderEndpointArgs(**endpoints)],
            "skip_credentials_validation": True,
            "skip_metadata_api_check": True,
            "skip_region_validation": True,
            "skip_requesting_account_id": access.account_id is None,
        }
    return aws.Provider(
        logical_name(args.participant, "aws"),
        region=access.region,
        profile=access.profile,
        allowed_account_ids=[access.account_id] if access.account_id else None,
        default_tags=aws.ProviderDefaultTagsArgs(tags=common_tags("aws", args)),
        **options,
    )


class AwsParticipant(pulumi.ComponentResource):
    """The resources of one participant. `stage="address"` makes a subset of `stage="full"` with the same inputs.

    Outputs: public_ip, region; with `full` also private_ip, vm_id, size, ssh_user, host_key_fingerprint, image.
    Pass the provider by `opts` (`ResourceOptions(providers=[…])`); the children inherit it.
    """

    def __init__(
        self, name: str, args: ParticipantArgs, stage: Stage = "full", opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check_for("aws", args)
        super().__init__(COMPONENT_TYPE, name, {}, opts)
        self._args = args
        self._image = image_for("aws", args)
        self._network()
        self._address()
        self.outputs: Mapping[str, pulumi.Input[str]] = {"public_ip": self._public_ip, "region": args.region}
        if stage == "full":
            self._rules()
            self._state_volume()
            self._machine()
            self._attachment()
            self.outputs = {
                **self.outputs,
                "private_ip": self._interface.private_ip,
                "vm_id": self._instance.id,
                "size": args.size,
                "ssh_user": args.ssh_user,
                "host_key_fingerprint": args.host_key.fingerprint,
                "image": self._image.family,
            }
        self.register_outputs(dict(self.outputs))

    def _logical(self, kind: str) -> str:
        return logical_name(self._args.participant, kind)

    def _tags(self, kind: str) -> dict[str, str]:
        return resource_tags("aws", self._args, self._logical(kind))

    def _opts(self, **more: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **more)

    def _network(self) -> None:
        """The network, or the account's own; `_ways` is what a machine needs for its way out."""
        existing = self._args.existing
        self._ways: list[pulumi.Resource] = []
        self._subnet_id: pulumi.Input[str]
        self._vpc_id: pulumi.Input[str]
        self._zone: pulumi.Input[str]
        self._gateway: ec2.InternetGateway | None = None
        if existing.subnet and existing.vpc:
            self._subnet_id, self._vpc_id, self._zone = existing.subnet, existing.vpc, str(self._args.zone)
        else:
            self._own_network()
        self._group_id: pulumi.Input[str]
        if existing.security_group:
            self._group_id = existing.security_group
            return
        group = ec2.SecurityGroup(
            self._logical("firewall"),
            name=aws_name(self._args.federation, self._args.participant),
            description=f"fedspan {self._args.federation} {self._args.participant}",
            vpc_id=self._vpc_id,
            revoke_rules_on_delete=True,
            tags=self._tags("firewall"),
            opts=self._opts(delete_before_replace=True),
        )
        self._group_id = group.id

    def _own_network(self) -> None:
        vpc_ = ec2.Vpc(
            self._logical("vpc"),
            cidr_block=NETWORK,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=self._tags("vpc"),
            opts=self._opts(),
        )
        self._gateway = gateway = ec2.InternetGateway(
            self._logical("gateway"), vpc_id=vpc_.id, tags=self._tags("gateway"), opts=self._opts()
        )
        subnet = ec2.Subnet(
            self._logical("subnet"),
            vpc_id=vpc_.id,
            cidr_block=subnet_cidr(self._args.zone),
            availability_zone=self._args.zone,
            map_public_ip_on_launch=False,
            tags=self._tags("subnet"),
            opts=self._opts(),
        )
        table = ec2.RouteTable(self._logical("routes"), vpc_id=vpc_.id, tags=self._tags("routes"), opts=self._opts())
        route = ec2.Route(
            self._logical("default-route"),
            route_table_id=table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=self._opts(),
        )
        association = ec2.RouteTableAssociation(
            self._logical("subnet-routes"), route_table_id=table.id, subnet_id=subnet.id, opts=self._opts()
        )
        self._ways = [route, association]
        self._subnet_id, self._vpc_id, self._zone = subnet.id, vpc_.id, subnet.availability_zone

    def _address(self) -> None:
        """The interface and its Elastic IP stand for themselves: machines come and go, the address stays."""
        self._interface = ec2.NetworkInterface(
            self._logical("interface"),
            subnet_id=self._subnet_id,
            security_groups=[self._group_id],
            description=f"fedspan {self._args.federation} {self._args.participant}",
            tags=self._tags("interface"),
            opts=self._opts(),
        )
        self._public_ip: pulumi.Output[str] = self._interface.private_ip
        if self._args.existing.private:
            return
        # EC2 maps no address into a VPC without a gateway, and detaches no gateway while an address is mapped.
        address = ec2.Eip(
            self._logical("address"),
            domain="vpc",
            network_interface=self._interface.id,
            tags=self._tags("address"),
            opts=self._opts(depends_on=[self._gateway] if self._gateway else None),
        )
        self._ways.append(address)
        self._public_ip = address.public_ip

    def _rules(self) -> None:
        self._egress = [
            vpc.SecurityGroupEgressRule(
                self._logical(rule.kind),
                security_group_id=self._group_id,
                ip_protocol="-1" if rule.protocol == "all" else rule.protocol,
                from_port=rule.port,
                to_port=rule.port,
                cidr_ipv4=rule.cidr,
                description=rule.description,
                tags=self._tags(rule.kind),
                opts=self._opts(),
            )
            for rule in egress_rules("aws", self._args)
        ]
        for rule in ingress_rules(self._args):
            vpc.SecurityGroupIngressRule(
                self._logical(rule.aws_kind),
                security_group_id=self._group_id,
                ip_protocol="tcp",
                from_port=rule.port,
                to_port=rule.port,
                cidr_ipv4=rule.cidr,
                description=rule.description,
                tags=self._tags(rule.aws_kind),
                opts=self._opts(),
            )

    def _machine(self) -> None:
        args = self._args
        key = ec2.KeyPair(
            self._logical("key"),
            key_name=key_pair_name(args.federation, args.deployment, args.participant),
            public_key=args.public_key,
            tags=self._tags("key"),
            opts=self._opts(delete_before_replace=True),
        )
        image: pulumi.Input[str] = self._image.own or self._public_image()
        spot = ec2.InstanceInstanceMarketOptionsArgs(market_type="spot") if args.spot else None
        self._instance = ec2.Instance(
            self._logical("vm"),
            ami=image,
            instance_type=args.size,
            key_name=key.key_name,
            primary_network_interface=ec2.InstancePrimaryNetworkInterfaceArgs(network_interface_id=self._interface.id),
            user_data=pulumi.Output.secret(user_data(args)),
            user_data_replace_on_change=True,
            metadata_options=ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            root_block_device=ec2.InstanceRootBlockDeviceArgs(
                encrypted=True,
                kms_key_id=args.existing.kms_key,
                volume_type="gp3",
                volume_size=os_disk_gib("aws", args),
                delete_on_termination=True,
                tags=self._tags("os-disk"),
            ),
            instance_market_options=spot,
            # With an end, the machine's own timer powers it off: that must end its bill.
            instance_initiated_shutdown_behavior="terminate" if args.spot or args.expires else "stop",
            tags=machine_tags("aws", args, self._logical("vm")),
            opts=self._opts(
                # The volume too: it can be deleted only when the machine is gone.
                depends_on=[*self._ways, *self._egress, self._volume],
                # The interface takes one machine at a time.
                delete_before_replace=True,
                # A newer image alone is no reason to replace a machine.
                ignore_changes=None if args.reimage else ["ami"],
                # EC2 stops no one-time spot machine, so its size can't be changed in place.
                replace_on_changes=["instanceType"] if args.spot else None,
                custom_timeouts=_MACHINE_TIMEOUTS,
            ),
        )

    def _public_image(self) -> pulumi.Output[str]:
        """Today's image; public IDs, which the provider takes for secrets as it does with every parameter."""
        name = self._image.ssm_parameter
        image = ssm.get_parameter_output(name=name, opts=pulumi.InvokeOptions(parent=self))
        return pulumi.Output.unsecret(image.value)

    def _state_volume(self) -> None:
        self._volume = ebs.Volume(
            self._logical("state"),
            availability_zone=self._zone,
            encrypted=True,
            kms_key_id=self._args.existing.kms_key,
            size=self._args.state_disk_gib,
            type="gp3",
            tags=self._tags("state"),
            opts=self._opts(),
        )

    def _attachment(self) -> None:
        ec2.VolumeAttachment(
            self._logical("state-attachment"),
            device_name=AWS_DEVICE,
            instance_id=self._instance.id,
            volume_id=self._volume.id,
            # A mounted volume can't be detached from a machine that runs, and a spot machine can't be stopped: its
            # termination detaches the volume.
            stop_instance_before_detaching=not self._args.spot,
            skip_destroy=True if self._args.spot else None,
            opts=self._opts(delete_before_replace=True),
        )
