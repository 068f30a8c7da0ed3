"""A machine's disks: the system disk that is made with it, data disks that are attached to it or made with it."""

from __future__ import annotations

import uuid

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError, invalid_parameter, missing_parameter
from deployer.sandbox.azure.comp_checks import get
from deployer.sandbox.azure.comp_disks import DISKS, made_with, owner
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.state import Body, Cloud, Record


def disks(
    cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, old: Record | None
) -> tuple[list[Record], list[Record]]:
    """The disks to make and the ones to attach; the body then names them all."""
    storage = body["properties"].setdefault("storageProfile", {})
    system = storage.setdefault("osDisk", {})
    made, attached = [], []
    if old is None:
        made.append(_system_disk(cloud, resource, body, size, system))
    else:
        disk = cloud.find(get(old.properties, "storageProfile.osDisk.managedDisk.id"))
        if disk is not None:
            attached.append(disk)
            _check_system_size(system, disk, old)
    data = storage.setdefault("dataDisks", [])
    if len(data) > size.max_data_disks:
        raise ArmError(
            409,
            "OperationNotAllowed",
            f"The maximum number of data disks allowed to be attached to a VM of this size is {size.max_data_disks}.",
        )
    luns: set[int] = set()
    for index, item in enumerate(data):
        lun = item.get("lun")
        if lun is None or not 0 <= lun < 64:
            raise invalid_parameter("dataDisk.lun", "The value of parameter dataDisk.lun is invalid.")
        if lun in luns:
            raise invalid_parameter("dataDisk.lun", f"A disk at LUN {lun} already exists.")
        luns.add(lun)
        disk, fresh = _data_disk(cloud, resource, body, size, item, index, old)
        if any(disk.id.key == other.id.key for other in (*made, *attached)):
            raise invalid_parameter("dataDisk.name", f"A disk named '{disk.id.name}' already exists.")
        (made if fresh else attached).append(disk)
    return made, attached


def _system_disk(cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, system: Body) -> Record:
    option = system.get("createOption")
    if option is None:
        raise missing_parameter("osDisk.createOption")
    if option != "FromImage":
        raise invalid_parameter("osDisk.createOption", f"The sandbox makes system disks from images, not by {option}.")
    managed = system.setdefault("managedDisk", {})
    managed.setdefault("storageAccountType", "Premium_LRS" if size.premium else "Standard_LRS")
    _check_storage(size, managed["storageAccountType"], "osDisk")
    gib = system.get("diskSizeGB")
    if gib is not None and gib < 30:
        raise ArmError(
            409,
            "OperationNotAllowed",
            f"The specified disk size {gib} GB is smaller than the size of the corresponding disk in the VM image:"
            " 30 GB. This is not allowed. Please choose equal or greater size or do not specify an explicit size.",
            target="osDisk.diskSizeGB",
        )
    system.setdefault("name", f"{resource.name}_OsDisk_1_{uuid.uuid4().hex}")
    disk = made_with(cloud, resource, body, system["name"], gib, managed["storageAccountType"])
    disk.inner["system"] = True
    managed["id"] = str(disk.id)
    system.setdefault("diskSizeGB", disk.properties["diskSizeGB"])
    system.setdefault("osType", "Linux")
    system.setdefault("caching", "ReadWrite")
    system.setdefault("deleteOption", "Detach")
    return disk


def _check_system_size(system: Body, disk: Record, old: Record) -> None:
    before, wanted = disk.properties["diskSizeGB"], system.get("diskSizeGB")
    if wanted is None or wanted == before:
        return
    if wanted < before:
        raise invalid_parameter("osDisk.diskSizeGB", "Disks can only grow.")
    if old.inner["power"] != "deallocated":
        raise ArmError(
            409, "Conflict", "Disk resizing is allowed only when creating a VM or when the VM is deallocated."
        )


def _data_disk(
    cloud: Cloud,
    resource: ResourceId,
    body: Body,
    size: catalogue.Size,
    item: Body,
    index: int,
    old: Record | None,
) -> tuple[Record, bool]:
    option = item.get("createOption")
    managed = item.setdefault("managedDisk", {})
    item.setdefault("caching", "None")
    item.setdefault("deleteOption", "Detach")
    if option == "Attach" or (option == "Empty" and managed.get("id") and old is not None):
        path = f"properties.storageProfile.dataDisks[{index}].managedDisk.id"
        disk = cloud.reference(resource, managed, path, DISKS, body["location"])
        _check_attach(cloud, resource, body, size, disk)
        managed["id"] = str(disk.id)
        managed["storageAccountType"] = disk.body["sku"]["name"]
        item["name"], item["diskSizeGB"] = disk.id.name, disk.properties["diskSizeGB"]
        return disk, False
    if option != "Empty":
        raise invalid_parameter("dataDisk.createOption", f"The value '{option}' of dataDisk.createOption is invalid.")
    if not item.get("diskSizeGB"):
        raise missing_parameter("dataDisk.diskSizeGB")
    managed.setdefault("storageAccountType", "Premium_LRS" if size.premium else "Standard_LRS")
    _check_storage(size, managed["storageAccountType"], "dataDisk")
    item.setdefault("name", f"{resource.name}_disk{index + 2}_{uuid.uuid4().hex}")
    disk = made_with(cloud, resource, body, item["name"], item["diskSizeGB"], managed["storageAccountType"])
    managed["id"] = str(disk.id)
    return disk, True


def _check_attach(cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, disk: Record) -> None:
    machine = owner(cloud, disk)
    if machine is not None and machine.id.key != resource.key:
        raise ArmError(
            409,
            "ConflictingUserInput",
            f"Disk '{disk.id}' cannot be attached as the disk is already owned by VM '{machine.id}'.",
        )
    zones, theirs = body.get("zones") or [], disk.zones
    if theirs and theirs != zones:
        raise ArmError(
            400,
            "BadRequest",
            f"Disk {disk.id} cannot be attached to the VM because it is not in the same zone as the VM. VM zone:"
            f" '{', '.join(zones)}'. Disk zone: '{', '.join(theirs)}'.",
        )
    if zones and not theirs:
        raise ArmError(
            400,
            "BadRequest",
            f"Disk {disk.id} cannot be attached to the VM because the VM is in zone '{', '.join(zones)}' and the"
            " disk is in no zone.",
        )
    _check_storage(size, disk.body["sku"]["name"], "dataDisk")


def _check_storage(size: catalogue.Size, storage: str, target: str) -> None:
    if storage.startswith(("Premium", "Ultra")) and not size.premium:
        raise invalid_parameter(
            f"{target}.managedDisk.storageAccountType",
            "Requested operation cannot be performed because the VM size"
            f" {size.name} does not support the storage account type {storage} of disk. Consider updating the VM to a"
            " size that supports Premium storage.",
        )
