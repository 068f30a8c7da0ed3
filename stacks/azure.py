"""One participant on Azure: its own resource group, an address and a disk that outlive the machine, and the machine.

All names are fixed, so that every resource ID can be computed. Property names as in pulumi-azure-native 3.29 (network
2024-05-01, compute 2024-11-01, resources 2024-03-01).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_azure_native as azure
from pulumi_azure_native import compute, network, resources

from stacks.access import AzureAccess
from stacks.args import ParticipantArgs
from stacks.azure_identity import identity, power_role
from stacks.azure_machine import FIXED, daily_shutdown, disk_encryption, os_profile, security, storage
from stacks.azure_zones import has_zones
from stacks.cloud_checks import check_for
from stacks.egress import egress_rules
from stacks.images import Image, image_for
from stacks.names import Stage, azure_name, logical_name, machine_tags, resource_tags
from stacks.rules import DENY_SLOT, INGRESS_DENY, ingress_rules

NETWORK = "10.42.0.0/16"
SUBNET = "10.42.0.0/24"
COMPONENT_TYPE = "fedspan:stacks:AzureParticipant"

# Allocation can take long to fail; the GPU driver's installation takes 5 to 10 minutes after boot.
_MACHINE_TIMEOUTS = pulumi.CustomTimeouts(create="30m", update="30m", delete="30m")


def azure_provider(args: ParticipantArgs, access: AzureAccess) -> azure.Provider:
    """The stack's only provider, explicit: its subscription, its tenant where known, its region."""
    return azure.Provider(
        logical_name(args.participant, "azure"),
        subscription_id=access.subscription_id,
        tenant_id=access.tenant_id,
        location=access.location,
        metadata_host=access.metadata_host,
        environment=access.environment,
        disable_pulumi_partner_id=True,
    )


class AzureParticipant(pulumi.ComponentResource):
    """The resources of one participant. `stage="address"` makes a subset of `stage="full"` with the same inputs.

    Outputs: public_ip, region; with `full` also private_ip, vm_id (the resource ID), size, ssh_user,
    host_key_fingerprint, image, deallocate_at where the daily shutdown stands, self_deallocate where the machine has an
    identity of its own. Pass the provider by `opts` (`ResourceOptions(providers=[…])`), for the children too.
    """

    def __init__(
        self, name: str, args: ParticipantArgs, stage: Stage = "full", opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check_for("azure", args)
        super().__init__(COMPONENT_TYPE, name, {}, opts)
        self._args = args
        self._image: Image = image_for("azure", args)
        self._resource_group()
        self._network()
        self._address()
        address = self._ip.ip_address if self._ip else self._private_ip
        self.outputs: Mapping[str, pulumi.Input[Any]] = {"public_ip": address, "region": args.region}
        if stage == "full":
            self._rules()
            self._egress()
            self._state_disk()
            self._machine()
            if self._image.driver_extension:
                self._driver()
            if args.deallocate_at:
                daily_shutdown(args, self._vm, self._fixed("vm"), self._logical("shutdown"), self._opts())
            if args.self_deallocate:
                power_role(args, self._vm, self._logical("deallocate-role"), self)
            self.outputs = {
                **self.outputs,
                "private_ip": self._private_ip,
                "vm_id": self._vm.id,
                "size": args.size,
                "ssh_user": args.ssh_user,
                "host_key_fingerprint": args.host_key.fingerprint,
                "image": self._image.family,
                **({"deallocate_at": args.deallocate_at} if args.deallocate_at else {}),
                **({"self_deallocate": True} if args.self_deallocate else {}),
            }
        self.register_outputs(dict(self.outputs))

    def _logical(self, kind: str) -> str:
        return logical_name(self._args.participant, kind)

    def _fixed(self, kind: str) -> str:
        return azure_name(self._args.federation, self._args.participant, kind)

    def _tags(self, kind: str) -> dict[str, str]:
        return resource_tags("azure", self._args, self._logical(kind))

    def _opts(self, **more: Any) -> pulumi.ResourceOptions:
        """Children go with their resource group, and are replaced delete-first because their names are fixed."""
        return pulumi.ResourceOptions(parent=self, deleted_with=self._group, delete_before_replace=True, **more)

    def _resource_group(self) -> None:
        self._group = resources.ResourceGroup(
            self._logical("rg"),
            resource_group_name=self._fixed("rg"),
            location=self._args.region,
            tags=self._tags("rg"),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )

    def _network(self) -> None:
        """The network and its security group, or the account's own."""
        existing = self._args.existing
        self._firewall_id: pulumi.Input[str]
        if existing.security_group:
            self._firewall_id = existing.security_group
        else:
            firewall = network.NetworkSecurityGroup(
                self._logical("firewall"),
                network_security_group_name=self._fixed("nsg"),
                resource_group_name=self._group.name,
                location=self._args.region,
                tags=self._tags("firewall"),
                opts=self._opts(),
            )
            self._firewall_id, self._firewall_name = firewall.id, firewall.name
        self._subnet_id: pulumi.Input[str] = existing.subnet or self._own_subnet().id

    def _own_subnet(self) -> network.Subnet:
        vnet = network.VirtualNetwork(
            self._logical("vnet"),
            virtual_network_name=self._fixed("vnet"),
            resource_group_name=self._group.name,
            location=self._args.region,
            address_space=network.AddressSpaceArgs(address_prefixes=[NETWORK]),
            tags=self._tags("vnet"),
            opts=self._opts(),
        )
        return network.Subnet(
            self._logical("subnet"),
            subnet_name=self._fixed("subnet"),
            virtual_network_name=vnet.name,
            resource_group_name=self._group.name,
            address_prefix=SUBNET,
            default_outbound_access=False,
            network_security_group=network.NetworkSecurityGroupArgs(id=self._firewall_id),
            opts=self._opts(),
        )

    def _address(self) -> None:
        """The interface and its address stand for themselves: machines come and go, the address stays."""
        self._ip = None if self._args.existing.private else self._public_address()
        self._nic = network.NetworkInterface(
            self._logical("interface"),
            network_interface_name=self._fixed("nic"),
            resource_group_name=self._group.name,
            location=self._args.region,
            network_security_group=network.NetworkSecurityGroupArgs(id=self._firewall_id),
            ip_configurations=[
                network.NetworkInterfaceIPConfigurationArgs(
                    name="primary",
                    primary=True,
                    private_ip_allocation_method="Dynamic",
                    subnet=network.SubnetArgs(id=self._subnet_id),
                    public_ip_address=network.PublicIPAddressArgs(id=self._ip.id) if self._ip else None,
                )
            ],
            tags=self._tags("interface"),
            opts=self._opts(),
        )
        self._private_ip = self._nic.ip_configurations.apply(
            lambda configurations: configurations[0].private_ip_address if configurations else None
        )

    def _public_address(self) -> network.PublicIPAddress:
        return network.PublicIPAddress(
            self._logical("address"),
            public_ip_address_name=self._fixed("ip"),
            resource_group_name=self._group.name,
            location=self._args.region,
            sku=network.PublicIPAddressSkuArgs(name="Standard"),
            public_ip_allocation_method="Static",
            public_ip_address_version="IPv4",
            # Zone-redundant: it serves a machine of any zone, and one of none.
            zones=["1", "2", "3"] if has_zones(self._args.region) else None,
            tags=self._tags("address"),
            opts=self._opts(),
        )

    def _rules(self) -> None:
        """Inbound rules. Without the last one Azure's own AllowVnetInBound lets in every port from all of the virtual
        network, its peerings and what lies behind its gateways."""
        if self._args.existing.security_group:
            return
        for rule in ingress_rules(self._args):
            port = str(rule.port)
            self._rule(rule.azure_kind, rule.slot, "Inbound", "Allow", "Tcp", rule.cidr, port, rule.description)
        self._rule(INGRESS_DENY, DENY_SLOT, "Inbound", "Deny", "*", "*", "*", "nothing else gets in")

    def _egress(self) -> None:
        """Outbound rules, where they are wanted: without any, Azure lets everything out."""
        if not self._args.egress_restricted:
            return
        for rule in egress_rules("azure", self._args):
            protocol, port = rule.protocol.capitalize(), str(rule.port)
            self._rule(rule.kind, rule.slot, "Outbound", "Allow", protocol, rule.cidr, port)
        self._rule("egress-deny", DENY_SLOT, "Outbound", "Deny", "*", "*", "*")

    def _rule(
        self,
        kind: str,
        slot: int,
        direction: str,
        access: str,
        protocol: str,
        cidr: str,
        port: str,
        description: str | None = None,
    ) -> None:
        inbound = direction == "Inbound"
        network.SecurityRule(
            self._logical(kind),
            security_rule_name=kind,
            network_security_group_name=self._firewall_name,
            resource_group_name=self._group.name,
            priority=slot,
            direction=direction,
            access=access,
            protocol=protocol,
            source_address_prefix=cidr if inbound else "*",
            source_port_range="*",
            destination_address_prefix="*" if inbound else cidr,
            destination_port_range=port,
            description=description,
            opts=self._opts(),
        )

    def _state_disk(self) -> None:
        self._disk = compute.Disk(
            self._logical("state"),
            disk_name=self._fixed("state"),
            resource_group_name=self._group.name,
            location=self._args.region,
            zones=[self._args.zone] if self._args.zone else None,
            sku=compute.DiskSkuArgs(name="Premium_LRS"),
            disk_size_gb=self._args.state_disk_gib,
            creation_data=compute.CreationDataArgs(create_option="Empty"),
            encryption=disk_encryption(self._args),
            network_access_policy="DenyAll",
            public_network_access="Disabled",
            tags=self._tags("state"),
            # ARM moves no disk to another zone.
            opts=self._opts(replace_on_changes=["zones"]),
        )

    def _machine(self) -> None:
        args = self._args
        self._vm = compute.VirtualMachine(
            self._logical("vm"),
            vm_name=self._fixed("vm"),
            resource_group_name=self._group.name,
            location=args.region,
            zones=[args.zone] if args.zone else None,
            hardware_profile=compute.HardwareProfileArgs(vm_size=args.size),
            # No delete option here: interface and address outlive the machine.
            network_profile=compute.NetworkProfileArgs(
                network_interfaces=[compute.NetworkInterfaceReferenceArgs(id=self._nic.id, primary=True)]
            ),
            storage_profile=storage(args, self._image, self._fixed("os"), self._disk.id),
            os_profile=os_profile(args),
            security_profile=security(args, self._image),
            identity=identity(args),
            diagnostics_profile=compute.DiagnosticsProfileArgs(
                boot_diagnostics=compute.BootDiagnosticsArgs(enabled=True)
            ),
            priority="Spot" if args.spot else None,
            eviction_policy="Deallocate" if args.spot else None,
            billing_profile=compute.BillingProfileArgs(max_price=-1) if args.spot else None,
            tags=machine_tags("azure", args, self._logical("vm")),
            opts=self._opts(
                # A newer image alone is no reason to replace a machine.
                ignore_changes=None if args.reimage else ["storageProfile.imageReference"],
                replace_on_changes=list(FIXED),
                custom_timeouts=_MACHINE_TIMEOUTS,
            ),
        )

    def _driver(self) -> None:
        compute.VirtualMachineExtension(
            self._logical("gpu-driver"),
            vm_extension_name="NvidiaGpuDriverLinux",
            vm_name=self._vm.name,
            resource_group_name=self._group.name,
            location=self._args.region,
            publisher="Microsoft.HpcCompute",
            type="NvidiaGpuDriverLinux",
            type_handler_version="1.11",
            auto_upgrade_minor_version=True,
            tags=self._tags("gpu-driver"),
            opts=self._opts(custom_timeouts=_MACHINE_TIMEOUTS),
        )
