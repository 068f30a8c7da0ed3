"""What Azure refuses, the emulator refuses too: one case for each refusal, with Azure's own error code."""

from __future__ import annotations

import base64
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from .arm_kit import REGION, RULE, USER_DATA, Azure, refused

Do = Callable[[Azure], Any]


def _id(azure: Azure, path: str) -> str:
    return f"/subscriptions/{azure.subscription}/resourceGroups/rg/providers/{path}"


def _put(azure: Azure, path: str, body: dict[str, Any]) -> Any:
    """A raw PUT through the SDK's generic client, which sends a body as it is."""
    resource_id = _id(azure, path).lstrip("/")
    return azure.resources.resources.begin_create_or_update_by_id(resource_id, body, api_version="2024-05-01").result()


def _body(body: dict[str, Any], path: str = "Microsoft.Network/virtualNetworks/vnet") -> Do:
    return lambda azure: (azure.group(), _put(azure, path, body))


SPACE = {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}

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
    ("a misspelled property", _body({"location": REGION, "properties": {"adressSpace": {}}}), "InvalidJson"),
    ("a misspelled property on top", _body({"location": REGION, "zone": ["1"], "properties": SPACE}), "InvalidJson"),
    (
        "a list where an object belongs",
        _body({"location": REGION, "properties": {"addressSpace": ["10.0.0.0/16"]}}),
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
    ("no region", _body({"properties": SPACE}), "LocationRequired"),
    ("an unknown region", _body({"location": "mars", "properties": SPACE}), "LocationNotAvailableForResourceType"),
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
                networkSecurityGroup={"id": _id(a, "Microsoft.Network/networkSecurityGroups/none")},
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


def _vm(**properties: Any) -> Do:
    return lambda a: a.vm(a.network_for_vm(), properties=properties)


def _login(**profile: Any) -> Do:
    return _vm(osProfile=profile)


def _key(text: str, path: str = "/home/fedspan/.ssh/authorized_keys") -> Do:
    return _login(linuxConfiguration={"ssh": {"publicKeys": [{"keyData": text, "path": path}]}})


MACHINES: list[tuple[str, Do, str, str]] = [
    ("a size that does not exist", _vm(hardwareProfile={"vmSize": "Standard_D3s_v5"}), "InvalidParameter", "VM size"),
    ("no size", _vm(hardwareProfile=...), "InvalidParameter", "hardwareProfile.vmSize"),
    (
        "an image that does not exist",
        _vm(storageProfile={"imageReference": {"sku": "24_04"}}),
        "PlatformImageNotFound",
        "Canonical:ubuntu-24_04-lts:24_04:latest",
    ),
    (
        "an image of another architecture",
        _vm(hardwareProfile={"vmSize": "Standard_D2ps_v5"}),
        "InvalidParameter",
        "CPU Architecture",
    ),
    ("a user name that is not allowed", _login(adminUsername="admin"), "InvalidParameter", "Admin Username"),
    ("a host name with an underscore", _login(computerName="site_1"), "InvalidParameter", "Linux host name"),
    ("a key that is none", _key("ssh-ed25519 AAAA"), "InvalidParameter", "keyData is invalid"),
    (
        "a kind of key that Azure does not take",
        _key("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="),
        "InvalidParameter",
        "keyData is invalid",
    ),
    (
        "a key for another path",
        _key("ssh-rsa AAAA", "/root/.ssh/authorized_keys"),
        "InvalidParameter",
        "Destination path",
    ),
    (
        "no way to log in",
        _login(linuxConfiguration={"ssh": ...}),
        "InvalidParameter",
        "Authentication using either SSH",
    ),
    ("user-data that is no base64", _login(customData="#cloud-config"), "InvalidParameter", "87380"),
    (
        "user-data that is too long",
        _login(customData=base64.b64encode(b"x" * 65536).decode()),
        "InvalidParameter",
        "Base64",
    ),
    ("no interface", _vm(networkProfile=...), "InvalidParameter", "networkProfile"),
    ("a misspelled property", _vm(osProfil={}), "BadRequest", "'osProfil'"),
    ("a text for a number", _vm(storageProfile={"osDisk": {"diskSizeGB": "64"}}), "BadRequest", "System.Int32"),
    (
        "a word that Azure does not know",
        _vm(storageProfile={"osDisk": {"caching": "Always"}}),
        "InvalidParameter",
        "'ReadWrite'",
    ),
    (
        "a system disk smaller than its image",
        _vm(storageProfile={"osDisk": {"diskSizeGB": 20}}),
        "OperationNotAllowed",
        "30 GB",
    ),
    (
        "Premium storage on a size without",
        _vm(
            hardwareProfile={"vmSize": "Standard_D2_v5"},
            storageProfile={"osDisk": {"managedDisk": {"storageAccountType": "Premium_LRS"}}},
        ),
        "InvalidParameter",
        "Premium_LRS",
    ),
    (
        "encryption at host without the feature",
        _vm(securityProfile={"encryptionAtHost": True}),
        "InvalidParameter",
        "EncryptionAtHost",
    ),
    ("an eviction policy without Spot", _vm(evictionPolicy="Deallocate"), "OperationNotAllowed", "Spot"),
    (
        "a zonal machine with a regional address",
        lambda a: (
            a.group(),
            a.vnet(),
            a.vm(a.nic(a.subnet(), a.address(zones=...)), zones=["1"]),
        ),
        "ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint",
        "Regional",
    ),
    (
        "a regional machine with a zonal address",
        lambda a: (a.group(), a.vnet(), a.vm(a.nic(a.subnet(), a.address(zones=["1"])))),
        "ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint",
        "different zone constraint 1",
    ),
    (
        "a machine in a region without zones",
        lambda a: a.vm(a.network_for_vm(), zones=["5"]),
        "InvalidAvailabilityZone",
        "'5'",
    ),
    (
        "an interface that another machine has",
        lambda a: (nic := a.network_for_vm(), a.vm(nic), a.vm(nic, "two")),
        "NicInUse",
        "virtualMachines/vm",
    ),
    (
        "accelerated networking on a size without",
        lambda a: (
            a.group(),
            a.vnet(),
            a.vm(
                a.nic(a.subnet(), properties={"enableAcceleratedNetworking": True}),
                properties={"hardwareProfile": {"vmSize": "Standard_B1s"}},
            ),
        ),
        "VMSizeIsNotPermittedToEnableAcceleratedNetworking",
        "Standard_B1s",
    ),
    (
        "an interface that is not there",
        lambda a: (a.group(), a.vm(SimpleNamespace(id=_id(a, "Microsoft.Network/networkInterfaces/none")))),
        "InvalidResourceReference",
        "networkInterfaces/none",
    ),
]


def _disk_of(lun: int, disk: Any) -> dict[str, Any]:
    return {"lun": lun, "createOption": "Attach", "managedDisk": {"id": disk.id}}


def _with(*disks: dict[str, Any]) -> dict[str, Any]:
    return {"storageProfile": {"dataDisks": list(disks)}}


def _two_machines(a: Azure) -> None:
    nic = a.network_for_vm()
    disk = a.disk()
    a.vm(nic, properties=_with(_disk_of(0, disk)))
    other = a.nic(a.network.subnets.get("rg", "vnet", "subnet"), name="two")
    disks = {"storageProfile": {"osDisk": {"name": "os2"}, "dataDisks": [_disk_of(0, disk)]}}
    a.vm(other, "two", properties=disks)


DISKS: list[tuple[str, Do, str, str]] = [
    ("a disk of another machine", _two_machines, "ConflictingUserInput", "already owned"),
    (
        "two disks at one LUN",
        lambda a: a.vm(a.network_for_vm(), properties=_with(_disk_of(0, a.disk()), _disk_of(0, a.disk("two")))),
        "InvalidParameter",
        "LUN 0 already exists",
    ),
    (
        "one disk twice",
        lambda a: a.vm(a.network_for_vm(), properties=_with(_disk_of(0, disk := a.disk()), _disk_of(1, disk))),
        "InvalidParameter",
        "already exists",
    ),
    (
        "a data disk of the system disk's name",
        lambda a: a.vm(
            a.network_for_vm(), properties=_with({"lun": 0, "name": "os", "createOption": "Empty", "diskSizeGB": 4})
        ),
        "InvalidParameter",
        "'os' already exists",
    ),
    (
        "more disks than the size takes",
        lambda a: a.vm(a.network_for_vm(), properties=_with(*(_disk_of(i, a.disk(f"d{i}")) for i in range(5)))),
        "OperationNotAllowed",
        "this size is 4",
    ),
    (
        "a disk of another zone",
        lambda a: a.vm(a.network_for_vm(), zones=["1"], properties=_with(_disk_of(0, a.disk(zones=["2"])))),
        "BadRequest",
        "same zone",
    ),
    (
        "a disk of no zone at a zonal machine",
        lambda a: a.vm(a.network_for_vm(), zones=["1"], properties=_with(_disk_of(0, a.disk()))),
        "BadRequest",
        "no zone",
    ),
    (
        "an empty disk without a size",
        lambda a: (a.group(), a.disk(properties={"diskSizeGB": ...})),
        "InvalidParameter",
        "diskSizeGB",
    ),
    (
        "a disk that shrinks",
        lambda a: (a.group(), a.disk(), a.disk(properties={"diskSizeGB": 16})),
        "InvalidParameter",
        "only grow",
    ),
    (
        "another kind of storage while it is attached",
        lambda a: (
            a.vm(a.network_for_vm(), properties=_with(_disk_of(0, a.disk()))),
            a.disk(sku={"name": "StandardSSD_LRS"}),
        ),
        "OperationNotAllowed",
        "running VM",
    ),
    (
        "a system disk resized while the machine runs",
        lambda a: (
            nic := a.network_for_vm(),
            a.vm(nic),
            a.vm(nic, properties={"storageProfile": {"osDisk": {"diskSizeGB": 128}}}),
        ),
        "Conflict",
        "deallocated",
    ),
    (
        "a system disk whose name is taken",
        lambda a: (nic := a.network_for_vm(), a.disk("os"), a.vm(nic)),
        "ConflictingUserInput",
        "already exists",
    ),
]


def _changed(**properties: Any) -> Do:
    return lambda a: (nic := a.network_for_vm(), a.vm(nic), a.vm(nic, properties=properties))


_CLOUD_CONFIG = base64.b64encode(b"#cloud-config\n").decode()
_OTHER_USER = {"adminUsername": "other", "linuxConfiguration": {"ssh": ...}}
_NO_KEYS = {"linuxConfiguration": {"ssh": {"publicKeys": []}}}
FIXED: list[tuple[str, Do, str]] = [
    ("user-data", _changed(osProfile={"customData": _CLOUD_CONFIG}), "osProfile.customData"),
    ("the user's name", _changed(osProfile=_OTHER_USER), "osProfile.adminUsername"),
    ("the host's name", _changed(osProfile={"computerName": "other"}), "osProfile.computerName"),
    ("the image", _changed(storageProfile={"imageReference": {"sku": "minimal"}}), "imageReference.sku"),
    ("the keys", _changed(osProfile=_NO_KEYS), "linuxConfiguration.ssh.publicKeys"),
    ("the system disk's name", _changed(storageProfile={"osDisk": {"name": "other"}}), "osDisk.name"),
    ("Spot", _changed(priority="Spot"), "priority"),
]


def _cases(table: list[Any]) -> Any:
    return pytest.mark.parametrize("case", table, ids=[row[0] for row in table])


@_cases(GROUPS + NETWORKS + RULES + ADDRESSES)
def test_groups_networks_and_addresses_are_checked(azure: Azure, case: tuple[str, Do, str]) -> None:
    with refused(case[2]):
        case[1](azure)


@_cases(DELETES)
def test_what_is_still_needed_cannot_be_deleted(azure: Azure, case: tuple[str, Do, str]) -> None:
    with refused(case[2]):
        case[1](azure)


@_cases(MACHINES + DISKS)
def test_machines_and_disks_are_checked_and_nothing_is_made(azure: Azure, case: tuple[str, Do, str, str]) -> None:
    with refused(case[2], case[3]):
        case[1](azure)


@_cases(FIXED)
def test_what_is_fixed_for_a_machines_life_cannot_change(azure: Azure, case: tuple[str, Do, str]) -> None:
    with refused("PropertyChangeNotAllowed", f"'{case[2]}'", status=409):
        case[1](azure)
    spec = next(m for m in azure.server.machines() if m.account == azure.subscription)
    assert (spec.user_data, spec.boots) == (USER_DATA, 0)


def test_a_refused_machine_leaves_nothing_behind(azure: Azure) -> None:
    nic = azure.network_for_vm()
    before = azure.kinds()
    with refused("InvalidParameter"):
        azure.vm(nic, properties={"storageProfile": {"dataDisks": [{"lun": 99, "createOption": "Empty"}]}})
    assert azure.kinds() == before
    azure.vm(nic)


def test_cores_beyond_the_quota_are_refused_with_the_figures(azure: Azure) -> None:
    azure.server.cloud.quotas[(azure.subscription, REGION, "cores")] = 3
    nic = azure.network_for_vm()
    azure.vm(nic)
    with refused("OperationNotAllowed", "Current Limit: 3", "Current Usage: 2", "Additional Required: 2", status=409):
        azure.vm(azure.nic(azure.network.subnets.get("rg", "vnet", "subnet"), name="two"), "two")
    with refused("OperationNotAllowed", "quota"):
        azure.vm(nic, properties={"hardwareProfile": {"vmSize": "Standard_D4s_v5"}})


def test_a_region_without_capacity_refuses_at_once_and_a_zone_fails_later(
    azure: Azure, fault: Callable[..., None]
) -> None:
    nic = azure.network_for_vm()
    fault(no_capacity=["westeurope"])
    with refused("SkuNotAvailable", "Standard_D2s_v5", "westeurope", status=409):
        azure.vm(nic)
    assert "virtualMachines" not in azure.kinds()
    fault(no_capacity=["westeurope-2"])
    with refused("ZonalAllocationFailed", "zone 2"):
        azure.vm(nic, zones=["2"])
    assert azure.compute.virtual_machines.get("rg", "vm").provisioning_state == "Failed"
    assert [m for m in azure.server.machines() if m.account == azure.subscription] == []
    fault()
    assert azure.vm(nic, zones=["2"]).provisioning_state == "Succeeded"  # a later PUT makes it whole
    assert [m.running for m in azure.server.machines() if m.account == azure.subscription] == [True]


def test_failures_on_request_leave_the_resource_failed_and_what_refers_to_it_waits(
    azure: Azure, fault: Callable[..., None]
) -> None:
    azure.group()
    azure.vnet()
    subnet = azure.subnet()
    fault(fail={"address": "InternalServerError: an error of the datacentre"})
    with refused("InternalServerError", "of the datacentre"):
        azure.address()
    address = azure.network.public_ip_addresses.get("rg", "ip")
    assert address.provisioning_state == "Failed"
    fault()
    with pytest.raises(HttpResponseError) as caught:
        azure.network.network_interfaces.begin_create_or_update(
            "rg",
            "nic",
            {
                "location": REGION,
                "properties": {
                    "ipConfigurations": [
                        {
                            "name": "c",
                            "properties": {"subnet": {"id": subnet.id}, "publicIPAddress": {"id": address.id}},
                        }
                    ]
                },
            },
            retry_total=0,
        )
    assert caught.value.error.code == "ReferencedResourceNotProvisioned"
    azure.nic(subnet, azure.address())


def test_extensions_need_a_running_machine_a_known_publisher_a_gpu_and_no_secure_boot(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.vm(nic)

    def driver(publisher: str = "Microsoft.HpcCompute", version: str = "1.11") -> Any:
        body = {
            "location": REGION,
            "properties": {
                "publisher": publisher,
                "type": "NvidiaGpuDriverLinux",
                "typeHandlerVersion": version,
                "autoUpgradeMinorVersion": True,
            },
        }
        begin = azure.compute.virtual_machine_extensions.begin_create_or_update
        return begin("rg", "vm", "gpu", body).result()

    with refused("ArtifactNotFound"):
        driver("Microsoft.Elsewhere")
    with refused("ArtifactVersionNotFound"):
        driver(version="7.0")
    with refused("VMExtensionProvisioningError", "no NVIDIA GPU"):
        driver()
    azure.vm(nic, properties={"hardwareProfile": {"vmSize": "Standard_NC4as_T4_v3"}})
    assert driver().provisioning_state == "Succeeded"
    secure = {"securityType": "TrustedLaunch", "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True}}
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    size = {"hardwareProfile": {"vmSize": "Standard_NC4as_T4_v3"}, "securityProfile": secure}
    azure.vm(nic, properties=size)
    with refused("VMExtensionProvisioningTimeout", "Secure Boot"):
        driver()
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    with refused("OperationNotAllowed", "not running"):
        driver()


def test_encryption_at_host_works_once_the_feature_is_registered(azure: Azure) -> None:
    nic = azure.network_for_vm()
    path = (
        f"/subscriptions/{azure.subscription}/providers/Microsoft.Features/providers/Microsoft.Compute/features"
        "/EncryptionAtHost/register?api-version=2021-07-01"
    )
    assert azure.resources.send_request(HttpRequest("POST", path)).json()["properties"]["state"] == "Registered"
    azure.vm(nic, properties={"securityProfile": {"encryptionAtHost": True}})
