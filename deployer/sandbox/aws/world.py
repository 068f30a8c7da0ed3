"""One region of one account in moto's memory, asked the questions that EC2's rules ask."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from typing import Any

from deployer.sandbox.aws.query import Refused

# moto's state belongs to the process and is made for one caller at a time: whoever reads or changes it holds this.
LOCK = threading.RLock()


class World:
    """Read access to a moto EC2 backend. Everything here is called with the server's lock held."""

    def __init__(self, backend: Any) -> None:
        self.ec2 = backend
        self.region: str = backend.region_name
        self.account: str = backend.account_id

    # -- finding things ----------------------------------------------------------------------------------------
    def instances(self) -> Iterator[Any]:
        """All instances that are not terminated."""
        for reservation in list(self.ec2.reservations.values()):
            for instance in reservation.instances:
                if instance.state != "terminated":
                    yield instance

    def instance(self, instance_id: str) -> Any:
        """Also a terminated one, as EC2 still answers for those."""
        found = self.ec2.get_instance_by_id(instance_id)
        if found is None:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        return found

    def interface(self, eni_id: str) -> Any:
        eni = self.ec2.enis.get(eni_id)
        if eni is None:
            raise Refused("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{eni_id}' does not exist")
        return eni

    def subnet(self, subnet_id: str) -> Any:
        for by_id in self.ec2.subnets.values():
            if subnet_id in by_id:
                return by_id[subnet_id]
        raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet_id}' does not exist")

    def group(self, group_id: str) -> Any:
        for by_id in self.ec2.groups.values():
            if group_id in by_id:
                return by_id[group_id]
        raise Refused("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")

    def groups(self) -> Iterator[Any]:
        for by_id in list(self.ec2.groups.values()):
            yield from list(by_id.values())

    def address(self, allocation_id: str | None, public_ip: str | None) -> Any:
        for address in self.ec2.addresses:
            if allocation_id and address.allocation_id == allocation_id:
                return address
            if public_ip and not allocation_id and address.public_ip == public_ip:
                return address
        if allocation_id:
            raise Refused("InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist")
        raise Refused("InvalidAddress.NotFound", f"Address '{public_ip}' not found.")

    def volume(self, volume_id: str) -> Any:
        volume = self.ec2.volumes.get(volume_id)
        if volume is None:
            raise Refused("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        return volume

    # -- asking about them -------------------------------------------------------------------------------------
    def interfaces_in(self, *, vpc: str | None = None, subnet: str | None = None) -> list[Any]:
        return [
            eni
            for eni in self.ec2.enis.values()
            if (vpc is None or eni.vpc_id == vpc) and (subnet is None or eni.subnet_id == subnet)
        ]

    def gateway_of(self, vpc_id: str) -> Any | None:
        return next((igw for igw in self.ec2.internet_gateways.values() if igw.vpc and igw.vpc.id == vpc_id), None)

    def used_addresses(self, subnet_id: str) -> set[str]:
        return {
            item["PrivateIpAddress"]
            for eni in self.interfaces_in(subnet=subnet_id)
            for item in eni.private_ip_addresses
        } | {str(eni.private_ip_address) for eni in self.interfaces_in(subnet=subnet_id)}

    def free_address(self, subnet: Any) -> str:
        """The next private address: as in a VPC the first four and the last of a subnet are AWS's own."""
        used = self.used_addresses(subnet.id)
        hosts = ipaddress.IPv4Network(subnet.cidr_block)
        for number in range(4, hosts.num_addresses - 1):
            candidate = str(hosts[number])
            if candidate not in used:
                return candidate
        raise Refused(
            "InsufficientFreeAddressesInSubnet",
            f"The specified subnet does not have enough free addresses to satisfy the request: {subnet.id}",
        )

    def check_private_address(self, subnet: Any, address: str) -> None:
        hosts = ipaddress.IPv4Network(subnet.cidr_block)
        try:
            inside = ipaddress.IPv4Address(address) in hosts
        except ipaddress.AddressValueError:
            raise Refused("InvalidParameterValue", f"invalid value for parameter address: [{address}]") from None
        if not inside:
            raise Refused("InvalidParameterValue", "Address does not fall within the subnet's address range")
        number = int(ipaddress.IPv4Address(address)) - int(hosts.network_address)
        if number < 4 or number == hosts.num_addresses - 1:
            raise Refused("InvalidParameterValue", "Address is in subnet's reserved address range")
        if address in self.used_addresses(subnet.id):
            raise Refused("InvalidIPAddress.InUse", f"The specified address is already in use: {address}")

    def offered(self, instance_type: str, zone: str | None) -> tuple[bool, bool, list[str]]:
        """Is the type known at all, is it offered here (in `zone`, else in the region), and in which zones is it?"""
        from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

        zones = sorted(
            offer["Location"]
            for offer in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.region, [])
            if offer["InstanceType"] == instance_type
        )
        return instance_type in INSTANCE_TYPES, bool(zones) and (zone is None or zone in zones), zones

    def vcpus(self, instance_type: str) -> int:
        """The type's vCPUs by default; 0 for one that is not known."""
        from moto.ec2.models.instance_types import INSTANCE_TYPES

        return int(INSTANCE_TYPES.get(instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))

    def zones(self) -> list[str]:
        return sorted(zone.name for zone in self.ec2.describe_availability_zones())
