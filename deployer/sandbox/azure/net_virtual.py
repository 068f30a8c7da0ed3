"""Virtual networks and their subnets."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

from deployer.sandbox.azure.arm_errors import ArmError, network_format
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, envelope
from deployer.sandbox.azure.state import Body, Cloud, Record

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SUBNETS = "Microsoft.Network/virtualNetworks/subnets"


def prefix(text: Any, owner: ResourceId) -> Network:
    """A CIDR range as Azure wants it: host bits zero."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text, strict=True)
    try:
        right = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ArmError(
            400,
            "InvalidAddressPrefixFormat",
            f"Address prefix {text} of resource {owner} is not formatted correctly. It should follow CIDR notation, for"
            " example 10.0.0.0/24.",
        ) from None
    raise ArmError(
        400,
        "InvalidCIDRNotation",
        f"The address prefix {text} in resource {owner} has an invalid CIDR notation. For the given prefix length, the"
        f" address prefix should be {right}.",
    )


def prefixes(properties: Body, owner: ResourceId) -> list[Network]:
    """The ranges of a subnet, in whichever of the two properties they stand."""
    given = properties.get("addressPrefixes") or [properties.get("addressPrefix")]
    return [prefix(text, owner) for text in given if text is not None]


def users(cloud: Cloud, subnet: Record) -> list[str]:
    """The IDs of the interfaces' configurations that hold an address of the subnet."""
    found = []
    for nic in cloud.of_type("Microsoft.Network/networkInterfaces"):
        for config in nic.properties.get("ipConfigurations", []):
            used = config.get("properties", {}).get("subnet", {}).get("id", "")
            if used.lower() == subnet.id.key:
                found.append(f"{nic.id}/ipConfigurations/{config['name']}")
    return found


def _inside(inner: Network, outer: list[Network]) -> bool:
    return any(inner.version == net.version and inner.subnet_of(net) for net in outer)  # type: ignore[arg-type]  # same version


class VirtualNetworks(ResourceKind):
    type = "Microsoft.Network/virtualNetworks"
    space, model = "network", "VirtualNetwork"
    aliases = ("azure-native:network:VirtualNetwork",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        ranges = properties.get("addressSpace", {}).get("addressPrefixes") or []
        if not ranges:
            raise network_format(f"Required property 'addressSpace' not found in JSON for {resource}.")
        outer = [prefix(text, resource) for text in ranges]
        for index, net in enumerate(outer):
            if any(net.overlaps(other) for other in outer[:index]):
                raise ArmError(
                    400,
                    "NetcfgAddressSpacePrefixesOverlap",
                    f"Address prefixes of virtual network '{resource.name}' overlap with one another.",
                )
        wanted = properties.pop("subnets", None)
        kept = cloud.children(resource, "subnets")
        new: dict[str, Body] | None = None
        if wanted is not None:
            new = self._inline(cloud, resource, wanted, outer, kept, body["location"])
        for subnet in kept:
            if new is not None and subnet.id.name.lower() not in {name.lower() for name in new}:
                SUBNET.check_delete(cloud, subnet)
            elif new is None and not all(_inside(net, outer) for net in prefixes(subnet.properties, subnet.id)):
                raise ArmError(
                    400,
                    "InUsePrefixCannotBeDeleted",
                    f"IpPrefix of subnet {subnet.id} on Vnet {resource.name} has active allocations and cannot be"
                    " deleted. Remove any active allocations under this prefix before attempting this operation.",
                )
        record = old or Record(resource, body)
        record.body = body
        cloud.records[resource.key] = record
        if new is not None:
            for subnet in kept:
                if subnet.id.name.lower() not in {name.lower() for name in new}:
                    cloud.records.pop(subnet.id.key)
            for name, inner in new.items():
                child = resource.child("subnets", name)
                existing = cloud.find(child)
                if existing is None:
                    cloud.records[child.key] = Record(child, inner, state="Succeeded")
                else:
                    existing.body = inner
        return record

    def _inline(
        self,
        cloud: Cloud,
        resource: ResourceId,
        wanted: list[Body],
        outer: list[Network],
        kept: list[Record],
        location: str,
    ) -> dict[str, Body]:
        """The subnets in a network's body, checked as if each had come by itself."""
        found: dict[str, Body] = {}
        for item in wanted:
            name = str(item.get("name") or (item.get("id") or "").rpartition("/")[2])
            if name.lower() in (seen.lower() for seen in found):
                raise ArmError(
                    400,
                    "DuplicateResourceName",
                    f"Resource {resource} has two child resources with the same name ({name}).",
                )
            child = resource.child("subnets", name)
            SUBNET.check_name(child)
            inner = {"properties": dict(item.get("properties") or {})}
            others = [(other, prefixes(b["properties"], resource)) for other, b in found.items()]
            existing = next((record for record in kept if record.id.key == child.key), None)
            SUBNET.check(cloud, child, inner, existing, outer, others, location)
            found[name] = inner
        return found

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        for subnet in cloud.children(record.id, "subnets"):
            SUBNET.check_delete(cloud, subnet)

    def remove(self, cloud: Cloud, record: Record) -> None:
        for subnet in cloud.children(record.id, "subnets"):
            cloud.records.pop(subnet.id.key)
        super().remove(cloud, record)

    def show(self, cloud: Cloud, record: Record) -> Body:
        subnets = [SUBNET.show(cloud, subnet) for subnet in cloud.children(record.id, "subnets")]
        properties = {
            "resourceGuid": record.guid,
            "privateEndpointVNetPolicies": "Disabled",
            "enableDdosProtection": False,
            **record.properties,
            "subnets": subnets,
            "virtualNetworkPeerings": record.properties.get("virtualNetworkPeerings", []),
        }
        return envelope(record, properties)


class Subnets(ResourceKind):
    type = SUBNETS
    space, model = "network", "Subnet"
    tracked = False
    aliases = ("azure-native:network:Subnet",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        parent = cloud.records[resource.parent.key] if resource.parent else None
        assert parent is not None
        outer = [prefix(text, parent.id) for text in parent.properties["addressSpace"]["addressPrefixes"]]
        others = [
            (record.id.name, prefixes(record.properties, record.id))
            for record in cloud.children(parent.id, "subnets")
            if record.id.key != resource.key
        ]
        body.setdefault("properties", {})
        self.check(cloud, resource, body, old, outer, others, parent.location)
        record = old or Record(resource, body)
        record.body = body
        cloud.records[resource.key] = record
        return record

    def check(
        self,
        cloud: Cloud,
        resource: ResourceId,
        body: Body,
        old: Record | None,
        outer: list[Network],
        others: list[tuple[str, list[Network]]],
        location: str,
    ) -> None:
        properties, network = body["properties"], resource.names[0]
        ranges = prefixes(properties, resource)
        if not ranges:
            raise ArmError(
                400,
                "NoAddressPrefixOrPoolProvided",
                f"No addressPrefix or IpamPool provided for Subnet {resource}.",
            )
        for net in ranges:
            if not _inside(net, outer):
                raise ArmError(
                    400,
                    "NetcfgInvalidSubnet",
                    f"Subnet '{resource.name}' is not valid because its IP address range is outside the IP address"
                    f" range of virtual network '{network}'.",
                )
            if net.version == 4 and net.prefixlen > 29:
                raise ArmError(
                    400,
                    "NetcfgInvalidSubnet",
                    f"Subnet '{resource.name}' is not valid in virtual network '{network}': {net} is smaller than /29.",
                )
            for other, taken in others:
                if any(net.overlaps(one) for one in taken):
                    raise ArmError(
                        400,
                        "NetcfgSubnetRangesOverlap",
                        f"Subnet '{resource.name}' is not valid because its IP address range overlaps with that of an"
                        f" existing subnet in virtual network '{network}'. Existing subnet: '{other}'.",
                    )
        if old is not None and users(cloud, old) and prefixes(old.properties, old.id) != ranges:
            raise ArmError(
                400,
                "InUsePrefixCannotBeDeleted",
                f"IpPrefix {old.properties.get('addressPrefix')} on Subnet {resource.name} has active allocations and"
                " cannot be deleted. Remove any active allocations under this prefix before attempting this operation.",
            )
        if group := properties.get("networkSecurityGroup"):
            found = cloud.reference(
                resource,
                group,
                "properties.networkSecurityGroup.id",
                "Microsoft.Network/networkSecurityGroups",
                location,
            )
            properties["networkSecurityGroup"] = {"id": str(found.id)}

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        if used := users(cloud, record):
            raise ArmError(
                400,
                "InUseSubnetCannotBeDeleted",
                f"Subnet {record.id.name} is in use by {', '.join(used)} and cannot be deleted. In order to delete the"
                " subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.",
            )

    def show(self, cloud: Cloud, record: Record) -> Body:
        properties: Body = {
            "delegations": [],
            "privateEndpointNetworkPolicies": "Disabled",
            "privateLinkServiceNetworkPolicies": "Enabled",
            **record.properties,
        }
        if used := users(cloud, record):
            properties["ipConfigurations"] = [{"id": one} for one in used]
        return envelope(record, properties)


SUBNET = Subnets()
