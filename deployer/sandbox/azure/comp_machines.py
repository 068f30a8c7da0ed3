"""Virtual machines: made from their interfaces, disks and profile; started, stopped, deallocated; deleted with what
their delete options say and nothing else."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from deployer.sandbox.azure import catalogue, comp_attach, comp_capacity, comp_checks, machine_identity
from deployer.sandbox.azure.arm_errors import ArmError, missing_parameter
from deployer.sandbox.azure.comp_checks import get
from deployer.sandbox.azure.comp_disks import DISKS, ComputeKind, around
from deployer.sandbox.azure.ids import MACHINES, ResourceId
from deployer.sandbox.azure.kinds import check_zones
from deployer.sandbox.azure.net_addresses import ADDRESSES, INTERFACES
from deployer.sandbox.azure.net_interfaces import nic_in_use, not_accelerated
from deployer.sandbox.azure.state import Body, Cloud, Record, now


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
        comp_capacity.sku_not_available(cloud, body, size)
        resized = old is not None and get(old.properties, "hardwareProfile.vmSize") != size.name
        if old is None or resized:
            comp_capacity.check_quota(cloud, old, resource.subscription, body, size)
        properties["hardwareProfile"]["vmSize"] = size.name
        comp_checks.check_image(properties, size, body["location"])
        profile = self._profile(properties)
        comp_checks.check_security(cloud, properties, resource.subscription)
        self._check_price(properties)
        machine_identity.wanted(body, old)
        nics = self._nics(cloud, resource, body, size, old)
        made, attached = comp_attach.disks(cloud, resource, body, size, old)

        record = old or Record(resource, body, inner={"vm_id": str(uuid.uuid4()), "power": "starting", "boots": 0})
        custom = profile.pop("customData", None)
        profile.pop("adminPassword", None)
        if old is None:
            record.inner["custom_data"] = comp_checks.decode_custom_data(custom) if custom is not None else b""
        record.body = body
        machine_identity.settle(record)
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

    # -- what happens ------------------------------------------------------------------------------------------
    def settled(self, cloud: Cloud, record: Record) -> None:
        size = comp_checks.size_of(record.properties)
        placed = record.inner["power"] in ("running", "stopped")
        if (not placed and record.inner["power"] != "deallocated") or (placed and record.inner.get("reboot")):
            if wrong := comp_capacity.no_capacity(cloud, record.body, size):
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
                comp_capacity.sku_not_available(cloud, record.body, size)
                if wrong := comp_capacity.no_capacity(cloud, record.body, size):
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
        more: dict[str, Any] = {"etag": f'"{record.etag}"', **machine_identity.show(cloud, record)}
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


MACHINE = Machines()
