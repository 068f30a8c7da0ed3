"""Virtual machines: made from their interfaces, disks and profile; started, stopped, deallocated; deleted with what
their delete options say and nothing else."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from deployer.sandbox.azure import catalogue, comp_checks
from deployer.sandbox.azure.arm_errors import ArmError, invalid_parameter, missing_parameter
from deployer.sandbox.azure.comp_checks import get
from deployer.sandbox.azure.comp_disks import DISKS, ComputeKind, around, made_with, owner
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import check_zones
from deployer.sandbox.azure.net_interfaces import ADDRESSES, INTERFACES, nic_in_use, not_accelerated
from deployer.sandbox.azure.state import Body, Cloud, Record, now

MACHINES = "Microsoft.Compute/virtualMachines"


class Machines(ComputeKind):
    type = MACHINES
    model, patch_model = "VirtualMachine", "VirtualMachineUpdate"
    aliases = ("azure-native:compute:VirtualMachine",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        check_zones(resource, body, old)
        if old is not None:
            comp_checks.check_fixed(properties, old)
        size = comp_checks.size_of(properties)
        comp_checks.sku_not_available(cloud, body, size)
        resized = old is not None and get(old.properties, "hardwareProfile.vmSize") != size.name
        if old is None or resized:
            comp_checks.check_quota(cloud, old, resource.subscription, body, size)
        properties["hardwareProfile"]["vmSize"] = size.name
        comp_checks.check_image(properties, size, body["location"])
        profile = self._profile(properties)
        comp_checks.check_security(cloud, properties, resource.subscription)
        self._check_price(properties)
        nics = self._nics(cloud, resource, body, size, old)
        made, attached = self._disks(cloud, resource, body, size, old)

        record = old or Record(resource, body, inner={"vm_id": str(uuid.uuid4()), "power": "starting", "boots": 0})
        custom = profile.pop("customData", None)
        profile.pop("adminPassword", None)
        if old is None:
            record.inner["custom_data"] = comp_checks.decode_custom_data(custom) if custom is not None else b""
        record.body = body
        record.inner["reboot"] = resized
        for disk in attached:
            if disk.inner.get("system"):
                disk.properties["diskSizeGB"] = get(properties, "storageProfile.osDisk.diskSizeGB")
        for nic in cloud.of_type(INTERFACES):
            if nic.inner.get("vm") == resource.key:
                nic.inner.pop("vm")
        for nic, primary in nics:
            nic.inner.update(vm=resource.key, primary=primary)
        for disk in made:
            cloud.records[disk.id.key] = disk
        for disk in cloud.of_type(DISKS):
            if disk.inner.get("vm") == resource.key:
                disk.inner.pop("vm")
        for disk in (*made, *attached):
            disk.inner["vm"] = resource.key
        cloud.records[resource.key] = record
        return record

    # -- what is checked ---------------------------------------------------------------------------------------
    def _profile(self, properties: Body) -> Body:
        profile: Body | None = properties.get("osProfile")
        if not profile:
            raise missing_parameter("osProfile")
        comp_checks.check_login(profile)
        if profile.get("customData") is not None:
            comp_checks.decode_custom_data(profile["customData"])
        linux = profile.setdefault("linuxConfiguration", {})
        linux.setdefault("provisionVMAgent", True)
        linux.setdefault("disablePasswordAuthentication", False)
        linux.setdefault("patchSettings", {}).setdefault("patchMode", "ImageDefault")
        linux["patchSettings"].setdefault("assessmentMode", "ImageDefault")
        for key in get(linux, "ssh.publicKeys") or []:
            key.setdefault("path", f"/home/{profile['adminUsername']}/.ssh/authorized_keys")
        profile.setdefault("allowExtensionOperations", True)
        profile.setdefault("requireGuestProvisionSignal", True)
        profile.setdefault("secrets", [])
        return profile

    def _check_price(self, properties: Body) -> None:
        spot = properties.get("priority") == "Spot"
        for name in ("evictionPolicy", "billingProfile"):
            if properties.get(name) is not None and not spot:
                raise ArmError(409, "OperationNotAllowed", f"'{name}' can be set only for Azure Spot VMs.", target=name)
        if spot:
            properties.setdefault("evictionPolicy", "Deallocate")

    def _nics(
        self, cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, old: Record | None
    ) -> list[tuple[Record, bool]]:
        wanted = get(body["properties"], "networkProfile.networkInterfaces") or []
        if not wanted:
            raise missing_parameter("networkProfile")
        found: list[tuple[Record, bool]] = []
        for index, item in enumerate(wanted):
            path = f"properties.networkProfile.networkInterfaces[{index}].id"
            nic = cloud.reference(resource, item, path, INTERFACES, body["location"])
            machine = cloud.find(nic.inner.get("vm"))
            if machine is not None and machine.id.key != resource.key:
                raise nic_in_use(nic, machine)
            if nic.properties.get("enableAcceleratedNetworking") and not size.accelerated:
                raise not_accelerated(size.name, str(nic.id))
            item["id"] = str(nic.id)
            self._check_address_zone(cloud, resource, body, nic)
            found.append((nic, bool(item.get("primary") or len(wanted) == 1)))
        if sum(primary for _, primary in found) != 1:
            raise ArmError(
                400,
                "VirtualMachineMustHaveOneNetworkInterfaceAsPrimary",
                f"Virtual machine {resource} must have one network interface set as the primary.",
            )
        before = {nic.id.key for nic in cloud.of_type(INTERFACES) if nic.inner.get("vm") == resource.key}
        if old is not None and old.inner["power"] == "running" and before != {nic.id.key for nic, _ in found}:
            raise ArmError(
                409,
                "AddingOrDeletingNetworkInterfacesOnARunningVirtualMachineIsNotSupported",
                f"Network interfaces of the running virtual machine {resource} cannot be changed. Deallocate it first.",
            )
        return found

    def _check_address_zone(self, cloud: Cloud, resource: ResourceId, body: Body, nic: Record) -> None:
        """A zonal machine needs an address of that zone or of all, one without a zone an address of none or of all."""
        zones = body.get("zones") or []
        for config in nic.properties["ipConfigurations"]:
            address = cloud.find(get(config, "properties.publicIPAddress.id") or "")
            if address is None or address.id.type != ADDRESSES:
                continue
            theirs = address.zones
            fits = set(zones) <= set(theirs) if zones else len(theirs) != 1
            if not fits:
                raise ArmError(
                    400,
                    "ComputeResourceZoneConstraintDoesNotMatchPublicIPAddressZoneConstraint",
                    f"The compute resource {resource} has a zone constraint {', '.join(zones) or 'Regional'} but the"
                    f" PublicIPAddress {address.id} used by the compute resource via NetworkInterface or LoadBalancer"
                    f" has a different zone constraint {', '.join(theirs) or 'Regional'}.",
                )

    def _disks(
        self, cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, old: Record | None
    ) -> tuple[list[Record], list[Record]]:
        """The disks to make and the ones to attach; the body then names them all."""
        storage = body["properties"].setdefault("storageProfile", {})
        system = storage.setdefault("osDisk", {})
        made, attached = [], []
        if old is None:
            made.append(self._system_disk(cloud, resource, body, size, system))
        else:
            disk = cloud.find(get(old.properties, "storageProfile.osDisk.managedDisk.id"))
            if disk is not None:
                attached.append(disk)
                self._check_system_size(system, disk, old)
        data = storage.setdefault("dataDisks", [])
        if len(data) > size.max_data_disks:
            raise ArmError(
                409,
                "OperationNotAllowed",
                "The maximum number of data disks allowed to be attached to a VM of this size is"
                f" {size.max_data_disks}.",
            )
        luns: set[int] = set()
        for index, item in enumerate(data):
            lun = item.get("lun")
            if lun is None or not 0 <= lun < 64:
                raise invalid_parameter("dataDisk.lun", "The value of parameter dataDisk.lun is invalid.")
            if lun in luns:
                raise invalid_parameter("dataDisk.lun", f"A disk at LUN {lun} already exists.")
            luns.add(lun)
            disk, fresh = self._data_disk(cloud, resource, body, size, item, index, old)
            (made if fresh else attached).append(disk)
        return made, attached

    def _system_disk(
        self, cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, system: Body
    ) -> Record:
        option = system.get("createOption")
        if option is None:
            raise missing_parameter("osDisk.createOption")
        if option != "FromImage":
            raise invalid_parameter(
                "osDisk.createOption", f"The sandbox makes system disks from images, not by {option}."
            )
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

    def _check_system_size(self, system: Body, disk: Record, old: Record) -> None:
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
        self,
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
            self._check_attach(cloud, resource, body, size, disk)
            managed["id"] = str(disk.id)
            managed["storageAccountType"] = disk.body["sku"]["name"]
            item["name"], item["diskSizeGB"] = disk.id.name, disk.properties["diskSizeGB"]
            return disk, False
        if option != "Empty":
            raise invalid_parameter(
                "dataDisk.createOption", f"The value '{option}' of dataDisk.createOption is invalid."
            )
        if not item.get("diskSizeGB"):
            raise missing_parameter("dataDisk.diskSizeGB")
        managed.setdefault("storageAccountType", "Premium_LRS" if size.premium else "Standard_LRS")
        _check_storage(size, managed["storageAccountType"], "dataDisk")
        item.setdefault("name", f"{resource.name}_disk{index + 2}_{uuid.uuid4().hex}")
        disk = made_with(cloud, resource, body, item["name"], item["diskSizeGB"], managed["storageAccountType"])
        managed["id"] = str(disk.id)
        return disk, True

    def _check_attach(self, cloud: Cloud, resource: ResourceId, body: Body, size: catalogue.Size, disk: Record) -> None:
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

    # -- what happens ------------------------------------------------------------------------------------------
    def settled(self, cloud: Cloud, record: Record) -> None:
        size = comp_checks.size_of(record.properties)
        placed = record.inner["power"] in ("running", "stopped")
        if (not placed and record.inner["power"] != "deallocated") or (placed and record.inner.get("reboot")):
            if wrong := comp_checks.no_capacity(cloud, record.body, size):
                raise wrong
            if record.inner["power"] == "starting":
                record.inner["power"] = "running"
            else:
                record.inner["boots"] += 1
        record.inner["reboot"] = False

    def act(self, cloud: Cloud, record: Record, action: str) -> None:
        """A power action's end: the record as it is afterwards."""
        power = record.inner["power"]
        size = comp_checks.size_of(record.properties)
        if action in ("start", "restart", "redeploy"):
            if action == "start" and power == "running":
                return
            if action != "start" and power != "running":
                raise ArmError(
                    409, "OperationNotAllowed", "The operation requires the VM to be running (or set to run)."
                )
            if power in ("deallocated", "starting"):
                comp_checks.sku_not_available(cloud, record.body, size)
                if wrong := comp_checks.no_capacity(cloud, record.body, size):
                    raise wrong
            record.inner["power"] = "running"
            record.inner["boots"] += 1
        elif action == "powerOff":
            record.inner["power"] = "stopped" if power in ("running", "starting") else power
        elif action == "deallocate":
            record.inner["power"] = "deallocated"

    def evict(self, cloud: Cloud, record: Record) -> None:
        """Azure takes a Spot machine's hardware back."""
        if record.properties.get("priority") != "Spot":
            raise ArmError(409, "OperationNotAllowed", "SimulateEviction is allowed for Azure Spot VMs only.")
        if record.properties.get("evictionPolicy") == "Delete":
            self.remove(cloud, record)
        else:
            record.inner["power"] = "deallocated"

    def remove(self, cloud: Cloud, record: Record) -> None:
        """The machine goes; an interface or a disk goes with it only where its delete option says so."""
        super().remove(cloud, record)
        for extension in cloud.children(record.id, "extensions"):
            cloud.records.pop(extension.id.key)
        storage = record.properties["storageProfile"]
        gone = {
            item["managedDisk"]["id"].lower()
            for item in (storage["osDisk"], *storage["dataDisks"])
            if item.get("deleteOption") == "Delete"
        }
        for disk in cloud.of_type(DISKS):
            if disk.inner.get("vm") == record.id.key:
                disk.inner.pop("vm")
                if disk.id.key in gone:
                    cloud.records.pop(disk.id.key)
        leaving = {
            item["id"].lower()
            for item in record.properties["networkProfile"]["networkInterfaces"]
            if get(item, "properties.deleteOption") == "Delete"
        }
        for nic in cloud.of_type(INTERFACES):
            if nic.inner.get("vm") == record.id.key:
                nic.inner.pop("vm")
                if nic.id.key in leaving:
                    cloud.records.pop(nic.id.key)

    # -- what is shown -----------------------------------------------------------------------------------------
    def show(self, cloud: Cloud, record: Record) -> Body:
        properties = copy.deepcopy(record.properties)
        properties["vmId"] = record.inner["vm_id"]
        properties["timeCreated"] = record.created
        image = properties["storageProfile"]["imageReference"]
        version = image.get("version", "latest")
        image["exactVersion"] = catalogue.IMAGE_VERSION if version == "latest" else version
        more: dict[str, Any] = {"etag": f'"{record.etag}"'}
        if extensions := cloud.children(record.id, "extensions"):
            more["resources"] = [{"id": str(extension.id)} for extension in extensions]
        return around(record, properties, **more)

    def instance_view(self, cloud: Cloud, record: Record) -> Body:
        """The machine as it runs: its statuses and its disks."""
        names = {"running": "VM running", "stopped": "VM stopped", "deallocated": "VM deallocated"}
        state = record.state.lower()
        provisioning: Body = {
            "code": f"ProvisioningState/{state}" + (f"/{record.failure.code}" if record.failure else ""),
            "level": "Error" if record.failure else "Info",
            "displayStatus": f"Provisioning {state}",
            "time": now(),
        }
        if record.failure:
            provisioning["message"] = record.failure.message
        statuses = [provisioning]
        power = record.inner["power"]
        if power in names:
            statuses.append({"code": f"PowerState/{power}", "level": "Info", "displayStatus": names[power]})
        return {
            "computerName": get(record.properties, "osProfile.computerName"),
            "osName": "ubuntu",
            "hyperVGeneration": "V2",
            "disks": [
                {"name": disk.id.name, "statuses": [{"code": "ProvisioningState/succeeded", "level": "Info"}]}
                for disk in cloud.of_type(DISKS)
                if disk.inner.get("vm") == record.id.key
            ],
            "bootDiagnostics": {},
            "statuses": statuses,
        }


def _check_storage(size: catalogue.Size, storage: str, target: str) -> None:
    if storage.startswith(("Premium", "Ultra")) and not size.premium:
        raise invalid_parameter(
            f"{target}.managedDisk.storageAccountType",
            "Requested operation cannot be performed because the VM size"
            f" {size.name} does not support the storage account type {storage} of disk. Consider updating the VM to a"
            " size that supports Premium storage.",
        )


MACHINE = Machines()
