"""What Azure refuses of machines and disks, the emulator refuses too: one case each, with Azure's own error code."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

from .arm_kit import USER_DATA, Azure, refused
from .refused_cases import Do, cases, path_of


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
        lambda a: (a.group(), a.vm(SimpleNamespace(id=path_of(a, "Microsoft.Network/networkInterfaces/none")))),
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


@cases(MACHINES + DISKS)
def test_machines_and_disks_are_checked_and_nothing_is_made(azure: Azure, case: tuple[str, Do, str, str]) -> None:
    with refused(case[2], case[3]):
        case[1](azure)


@cases(FIXED)
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
