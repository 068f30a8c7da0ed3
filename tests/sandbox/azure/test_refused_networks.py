"""What Azure refuses of groups, networks, rules and addresses, the emulator refuses, with Azure's own error code."""

from __future__ import annotations

from typing import Any

from .arm_kit import REGION, RULE, Azure, refused
from .refused_cases import SPACE, Do, cases, path_of, raw

GROUPS: list[tuple[str, Do, str]] = [
    ("a name with a slash-like sign", lambda a: a.group("a b"), "InvalidResourceGroup"),
    ("a name that ends with a dot", lambda a: a.group("rg."), "InvalidResourceGroup"),
    ("a region that does not exist", lambda a: a.group("rg", "mars"), "LocationNotAvailableForResourceGroup"),
    ("another region for what exists", lambda a: (a.group(), a.group("rg", "eastus")), "InvalidResourceGroupLocation"),
    ("nothing said of the region", lambda a: a.group("rg", ""), "LocationRequired"),
    (
        "a delete of what is not there",
        lambda a: a.resources.resource_groups.begin_delete("rg"),
        "ResourceGroupNotFound",
    ),
    ("a resource without a group", lambda a: a.vnet(), "ResourceGroupNotFound"),
]

NETWORKS: list[tuple[str, Do, str]] = [
    ("a misspelled property", raw({"location": REGION, "properties": {"adressSpace": {}}}), "InvalidJson"),
    ("a misspelled property on top", raw({"location": REGION, "zone": ["1"], "properties": SPACE}), "InvalidJson"),
    (
        "a list where an object belongs",
        raw({"location": REGION, "properties": {"addressSpace": ["10.0.0.0/16"]}}),
        "InvalidJson",
    ),
    (
        "a word that Azure does not know",
        lambda a: (
            a.group(),
            a.nsg(properties={"securityRules": [{"name": "r", "properties": {**RULE, "access": "Yes"}}]}),
        ),
        "InvalidJson",
    ),
    ("no region", raw({"properties": SPACE}), "LocationRequired"),
    ("an unknown region", raw({"location": "mars", "properties": SPACE}), "LocationNotAvailableForResourceType"),
    (
        "another region than before",
        lambda a: (a.group(), a.vnet(), a.vnet(location="eastus")),
        "InvalidResourceLocation",
    ),
    ("a name with a space", lambda a: (a.group(), a.vnet("a b")), "InvalidResourceName"),
    ("a name that begins with a dash", lambda a: (a.group(), a.vnet("-a")), "InvalidResourceName"),
    ("a name of 81 characters", lambda a: (a.group(), a.vnet("a" * 81)), "InvalidResourceName"),
    ("a reserved sign in a tag's name", lambda a: (a.group(), a.vnet(tags={"a/b": "c"})), "InvalidTagNameCharacters"),
    ("a tag's value that is too long", lambda a: (a.group(), a.vnet(tags={"a": "b" * 257})), "InvalidTagValueLength"),
    ("51 tags", lambda a: (a.group(), a.vnet(tags={f"t{i}": "" for i in range(51)})), "InvalidTagCount"),
    (
        "host bits in a range",
        lambda a: (a.group(), a.vnet(properties={"addressSpace": {"addressPrefixes": ["10.0.0.1/16"]}})),
        "InvalidCIDRNotation",
    ),
    (
        "a range that is none",
        lambda a: (a.group(), a.vnet(properties={"addressSpace": {"addressPrefixes": ["ten"]}})),
        "InvalidAddressPrefixFormat",
    ),
    ("a subnet without a network", lambda a: (a.group(), a.subnet()), "ParentResourceNotFound"),
    (
        "a subnet outside its network",
        lambda a: (a.group(), a.vnet(), a.subnet(addressPrefix="10.1.0.0/24")),
        "NetcfgInvalidSubnet",
    ),
    (
        "a subnet without a range",
        lambda a: (a.group(), a.vnet(), a.subnet(addressPrefix=None)),
        "NoAddressPrefixOrPoolProvided",
    ),
    (
        "a subnet too small for Azure's own addresses",
        lambda a: (a.group(), a.vnet(), a.subnet(addressPrefix="10.0.0.0/30")),
        "NetcfgInvalidSubnet",
    ),
    (
        "two subnets that overlap",
        lambda a: (a.group(), a.vnet(), a.subnet(), a.subnet("other", addressPrefix="10.0.0.128/25")),
        "NetcfgSubnetRangesOverlap",
    ),
    (
        "two subnets of one name in one body",
        lambda a: (
            a.group(),
            a.vnet(properties={"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}] * 2}),
        ),
        "DuplicateResourceName",
    ),
    (
        "a subnet with a group that is not there",
        lambda a: (
            a.group(),
            a.vnet(),
            a.subnet(
                networkSecurityGroup={"id": path_of(a, "Microsoft.Network/networkSecurityGroups/none")},
            ),
        ),
        "InvalidResourceReference",
    ),
    (
        "a subnet with a group of another region",
        lambda a: (
            a.group(),
            a.vnet(),
            a.subnet(networkSecurityGroup={"id": a.nsg(location="eastus").id}),
        ),
        "InvalidResourceReference",
    ),
    (
        "a reference that is no ID",
        lambda a: (a.group(), a.vnet(), a.subnet(networkSecurityGroup={"id": "nsg"})),
        "LinkedInvalidPropertyId",
    ),
    (
        "a range taken from under a subnet",
        lambda a: (
            a.group(),
            a.vnet(),
            a.subnet(),
            a.vnet(properties={"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}}),
        ),
        "InUsePrefixCannotBeDeleted",
    ),
]


def _rule(**properties: Any) -> Do:
    return lambda a: (a.group(), a.nsg(), a.rule(**properties))


RULES: list[tuple[str, Do, str]] = [
    ("a priority below 100", _rule(priority=99), "SecurityRuleInvalidPriority"),
    ("a priority above 4096", _rule(priority=4097), "SecurityRuleInvalidPriority"),
    ("no priority", _rule(priority=None), "SecurityRuleParameterMissing"),
    (
        "a priority twice",
        lambda a: (a.group(), a.nsg(), a.rule(), a.rule("other")),
        "SecurityRuleConflict",
    ),
    ("a port that is none", _rule(destinationPortRange="ssh"), "SecurityRuleInvalidPortRange"),
    ("a port beyond 65535", _rule(destinationPortRange="65536"), "SecurityRuleInvalidPortRange"),
    ("a range of ports the wrong way round", _rule(destinationPortRange="90-80"), "SecurityRuleInvalidPortRange"),
    ("a source that is no range", _rule(sourceAddressPrefix="1.2.3"), "SecurityRuleInvalidAddressPrefix"),
    ("no source", _rule(sourceAddressPrefix=None), "SecurityRuleParameterMissing"),
    ("both sources", _rule(sourceAddressPrefixes=["1.2.3.4/32"]), "SecurityRuleParameterConflict"),
    (
        "a service tag among ranges",
        _rule(sourceAddressPrefix=None, sourceAddressPrefixes=["1.2.3.4/32", "Internet"]),
        "SecurityRuleParameterContainsUnsupportedValue",
    ),
    ("a description of 141 characters", _rule(description="x" * 141), "SecurityRuleDescriptionTooLong"),
    ("a rule without its group", lambda a: (a.group(), a.rule()), "ParentResourceNotFound"),
]

ADDRESSES: list[tuple[str, Do, str]] = [
    (
        "a Basic address",
        lambda a: (a.group(), a.address(sku={"name": "Basic"}, zones=...)),
        "IPv4BasicSkuPublicIpCountLimitReached",
    ),
    (
        "a Standard address that is dynamic",
        lambda a: (a.group(), a.address(properties={"publicIPAllocationMethod": "Dynamic"})),
        "StandardAndStandardV2SkuPublicIPAddressesMustBeStatic",
    ),
    (
        "other zones than before",
        lambda a: (a.group(), a.address(), a.address(zones=["1"])),
        "ResourceAvailabilityZonesCannotBeModified",
    ),
    (
        "a zone where there are none",
        lambda a: (a.group(), a.address(location="westus")),
        "InvalidAvailabilityZone",
    ),
    ("a zone that there is not", lambda a: (a.group(), a.address(zones=["4"])), "InvalidAvailabilityZone"),
    (
        "a DNS label with capitals",
        lambda a: (a.group(), a.address(properties={"dnsSettings": {"domainNameLabel": "Server"}})),
        "InvalidDomainNameLabel",
    ),
    (
        "a DNS label that another address has",
        lambda a: (
            a.group(),
            a.address(properties={"dnsSettings": {"domainNameLabel": "taken-name"}}),
            a.address("two", properties={"dnsSettings": {"domainNameLabel": "taken-name"}}),
        ),
        "DnsRecordInUse",
    ),
    (
        "an address that another interface has",
        lambda a: (
            a.group(),
            a.vnet(),
            subnet := a.subnet(),
            address := a.address(),
            a.nic(subnet, address),
            a.nic(subnet, address, "two"),
        ),
        "PublicIPAddressInUse",
    ),
    (
        "an interface in another region than its subnet",
        lambda a: (a.group(), a.vnet(), a.nic(a.subnet(), location="eastus")),
        "InvalidResourceReference",
    ),
    (
        "an interface without a configuration",
        lambda a: (a.group(), a.vnet(), a.nic(a.subnet(), properties={"ipConfigurations": []})),
        "NetworkInterfaceMustHaveIpConfigurationOrAttachedElasticNetworkInterface",
    ),
]


def _static(address: str) -> Do:
    def do(a: Azure) -> None:
        a.group()
        a.vnet()
        subnet = a.subnet()
        a.nic(subnet)
        fixed = {"subnet": {"id": subnet.id}, "privateIPAllocationMethod": "Static", "privateIPAddress": address}
        a.nic(subnet, name="two", properties={"ipConfigurations": [{"name": "c", "properties": fixed}]})

    return do


ADDRESSES += [
    ("a private address outside the subnet", _static("10.0.1.7"), "PrivateIPAddressNotInSubnet"),
    ("a private address that Azure keeps", _static("10.0.0.1"), "PrivateIPAddressInReservedRange"),
    ("a private address that is taken", _static("10.0.0.4"), "PrivateIPAddressIsAllocated"),
]

DELETES: list[tuple[str, Do, str]] = [
    (
        "a subnet with an interface in it",
        lambda a: (a.network_for_vm(), a.network.subnets.begin_delete("rg", "vnet", "subnet").result()),
        "InUseSubnetCannotBeDeleted",
    ),
    (
        "a network with a used subnet",
        lambda a: (a.network_for_vm(), a.network.virtual_networks.begin_delete("rg", "vnet").result()),
        "InUseSubnetCannotBeDeleted",
    ),
    (
        "a used subnet left out of its network's body",
        lambda a: (a.network_for_vm(), a.vnet(properties={"subnets": []})),
        "InUseSubnetCannotBeDeleted",
    ),
    (
        "an address that an interface has",
        lambda a: (a.network_for_vm(), a.network.public_ip_addresses.begin_delete("rg", "ip").result()),
        "PublicIPAddressCannotBeDeleted",
    ),
    (
        "an interface of a machine",
        lambda a: (a.vm(a.network_for_vm()), a.network.network_interfaces.begin_delete("rg", "nic").result()),
        "NicInUse",
    ),
    (
        "a disk of a machine",
        lambda a: (a.vm(a.network_for_vm()), a.compute.disks.begin_delete("rg", "os").result()),
        "OperationNotAllowed",
    ),
    (
        "a security group that guards a subnet",
        lambda a: (
            a.group(),
            a.vnet(),
            a.subnet(networkSecurityGroup={"id": a.nsg().id}),
            a.network.network_security_groups.begin_delete("rg", "nsg").result(),
        ),
        "InUseNetworkSecurityGroupCannotBeDeleted",
    ),
    (
        "a group whose address is used from another group",
        lambda a: (
            a.group(),
            a.group("two"),
            a.vnet(),
            a.nic(a.subnet(), a.address(group="two")),
            a.resources.resource_groups.begin_delete("two").result(),
        ),
        "ResourceGroupDeletionBlocked",
    ),
]


@cases(GROUPS + NETWORKS + RULES + ADDRESSES)
def test_groups_networks_and_addresses_are_checked(azure: Azure, case: tuple[str, Do, str]) -> None:
    with refused(case[2]):
        case[1](azure)


@cases(DELETES)
def test_what_is_still_needed_cannot_be_deleted(azure: Azure, case: tuple[str, Do, str]) -> None:
    with refused(case[2]):
        case[1](azure)
