"""Managed disks."""

from __future__ import annotations

import re
import uuid
from typing import Any

from deployer.sandbox.azure.arm_errors import ArmError, change_not_allowed, invalid_parameter, missing_parameter
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, check_zones
from deployer.sandbox.azure.schema import Misfit
from deployer.sandbox.azure.state import Body, Cloud, Record

DISKS = "Microsoft.Compute/disks"
_NAME = re.compile(r"[^_\W][\w.-]{0,79}(?<![-.])\Z", re.ASCII)
_MAX_GIB = 32767
_IMAGE_GIB = 30  # the size of an Ubuntu image's system disk


class ComputeKind(ResourceKind):
    """What the types of Microsoft.Compute share."""

    space = "compute"
    creating = "Creating"
    patches = True
    entity = "vmName"

    def check_name(self, resource: ResourceId) -> None:
        if not _NAME.match(resource.name):
            raise invalid_parameter(
                self.entity,
                f"The entity name '{self.entity}' is invalid according to its validation rule:"
                r" ^[^_\W][\w-._]{0,79}(?<![-.])$.",
            )

    def refuse_body(self, wrong: Misfit) -> ArmError:
        if wrong.problem == "unknown":
            name = wrong.path.rsplit(".", 1)[-1]
            return ArmError(400, "BadRequest", f"{wrong.detail} '{wrong.model}'. Path '{wrong.path}'.", target=name)
        if wrong.problem == "choice":
            return invalid_parameter(wrong.path.removeprefix("properties."), f"{wrong.detail} Path '{wrong.path}'.")
        return ArmError(400, "BadRequest", f"{wrong.detail} Path '{wrong.path}'.", target=wrong.path)


def around(record: Record, properties: Body, **more: Any) -> Body:
    """What every compute resource shows around its properties."""
    return {
        "name": record.id.name,
        "id": str(record.id),
        "type": record.id.type,
        **{key: value for key, value in record.body.items() if key != "properties"},
        **more,
        "properties": {"provisioningState": record.state, **properties},
    }


def owner(cloud: Cloud, disk: Record) -> Record | None:
    """The machine that the disk is attached to."""
    return cloud.find(disk.inner.get("vm"))


class Disks(ComputeKind):
    type = DISKS
    model, patch_model = "Disk", "DiskUpdate"
    accepted = updated = 202
    creating = "Updating"
    entity = "disk.name"
    aliases = ("azure-native:compute:Disk",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        check_zones(resource, body, old)
        source = properties.get("creationData", {}).get("createOption")
        if source is None:
            raise missing_parameter("disk.creationData.createOption")
        if source != "Empty" and not (old is not None and old.properties["creationData"] == properties["creationData"]):
            raise invalid_parameter(
                "disk.creationData.createOption", f"The sandbox makes empty disks only, not by '{source}'."
            )
        size = properties.get("diskSizeGB")
        if size is None:
            if old is None:
                raise missing_parameter("disk.diskSizeGB")
            size = properties["diskSizeGB"] = old.properties["diskSizeGB"]
        if not 1 <= size <= _MAX_GIB:
            raise invalid_parameter("disk.diskSizeGB", "The value of parameter disk.diskSizeGB is invalid.")
        body.setdefault("sku", {}).setdefault("name", "Standard_LRS")
        if old is not None:
            self._check_change(cloud, resource, body, old)
        record = old or Record(resource, body)
        record.body = body
        record.inner.setdefault("unique", str(uuid.uuid4()))
        cloud.records[resource.key] = record
        return record

    def _check_change(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record) -> None:
        new, before = body["properties"], old.properties
        if new["creationData"] != before["creationData"]:
            raise change_not_allowed("disk.creationData")
        if new["diskSizeGB"] < before["diskSizeGB"]:
            raise invalid_parameter(
                "disk.diskSizeGB",
                f"The new disk size {new['diskSizeGB']} GB is less than the current size {before['diskSizeGB']} GB:"
                " disks can only grow.",
            )
        machine = owner(cloud, old)
        if machine is not None and machine.inner.get("power") == "running":
            if body["sku"] != old.body.get("sku"):
                raise ArmError(
                    409,
                    "OperationNotAllowed",
                    f"Cannot change the SKU of disk {resource.name} while it is attached to the running VM"
                    f" {machine.id}.",
                )
            if old.inner.get("system") and new["diskSizeGB"] != before["diskSizeGB"]:
                raise ArmError(
                    409,
                    "OperationNotAllowed",
                    f"Cannot resize disk {resource.name} while it is attached to running VM {machine.id}."
                    " Resizing a disk of an Azure Virtual Machine requires the virtual machine to be deallocated.",
                )

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        if machine := owner(cloud, record):
            raise ArmError(409, "OperationNotAllowed", f"Disk {record.id.name} is attached to VM {machine.id}.")

    def show(self, cloud: Cloud, record: Record) -> Body:
        machine = owner(cloud, record)
        state = "Unattached"
        if machine is not None:
            state = "Attached" if machine.inner.get("power") == "running" else "Reserved"
        properties: Body = {
            "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
            "networkAccessPolicy": "AllowAll",
            "publicNetworkAccess": "Enabled",
            **record.properties,
            "timeCreated": record.created,
            "uniqueId": record.inner["unique"],
            "diskSizeBytes": record.properties["diskSizeGB"] << 30,
            "diskState": state,
        }
        sku = record.body["sku"]
        more: Body = {"sku": {**sku, "tier": sku["name"].split("_")[0]}}
        if machine is not None:
            more["managedBy"] = str(machine.id)
        return around(record, properties, **more)


DISK = Disks()


def made_with(cloud: Cloud, machine: ResourceId, body: Body, name: str, gib: int | None, storage: str) -> Record:
    """A disk that is made together with a machine: its system disk, or an empty data disk. It bears no tags."""
    resource = ResourceId(machine.subscription, machine.group, DISKS, (name,))
    if cloud.find(resource) is not None:
        raise ArmError(
            409,
            "ConflictingUserInput",
            f"Disk {resource} already exists in resource group {machine.group.upper()}. Only CreateOption.Attach is"
            " supported.",
        )
    disk: Body = {
        "location": body["location"],
        "sku": {"name": storage},
        "properties": {
            "diskSizeGB": gib or _IMAGE_GIB,
            "creationData": {"createOption": "Empty"},
            "osType": "Linux",
        },
    }
    if body.get("zones"):
        disk["zones"] = list(body["zones"])
    return Record(resource, disk, state="Succeeded", inner={"unique": str(uuid.uuid4())})
