"""Extensions of virtual machines, the GPU driver's foremost."""

from __future__ import annotations

import re

from deployer.sandbox.azure.arm_errors import ArmError, missing_parameter
from deployer.sandbox.azure.comp_checks import get, size_of
from deployer.sandbox.azure.comp_disks import ComputeKind, around
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.state import Body, Cloud, Record

# (publisher, type) in lower case -> major versions
_KNOWN = {
    ("microsoft.hpccompute", "nvidiagpudriverlinux"): (1,),
    ("microsoft.azure.extensions", "customscript"): (2,),
    ("microsoft.azure.monitor", "azuremonitorlinuxagent"): (1,),
    ("microsoft.azure.activedirectory", "aadsshloginforlinux"): (1,),
    ("microsoft.ostcextensions", "vmaccessforlinux"): (1,),
    ("microsoft.guestconfiguration", "configurationforlinux"): (1,),
}
_GPU_DRIVER = ("microsoft.hpccompute", "nvidiagpudriverlinux")


class Extensions(ComputeKind):
    type = "Microsoft.Compute/virtualMachines/extensions"
    model, patch_model = "VirtualMachineExtension", "VirtualMachineExtensionUpdate"
    entity = "vmExtensionName"
    aliases = ("azure-native:compute:VirtualMachineExtension", "extension")

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        machine = cloud.find(resource.parent)
        assert machine is not None
        if machine.location != body["location"]:
            raise ArmError(
                404,
                "ParentResourceNotFound",
                f"The virtual machine {machine.id} is in location '{machine.location}', not in '{body['location']}'.",
            )
        if machine.inner["power"] != "running":
            raise ArmError(409, "OperationNotAllowed", "Cannot modify extensions in the VM when the VM is not running.")
        for name in ("publisher", "type", "typeHandlerVersion"):
            if not properties.get(name):
                raise missing_parameter(name)
        what = (properties["publisher"].lower(), properties["type"].lower())
        if what not in _KNOWN:
            raise ArmError(
                404,
                "ArtifactNotFound",
                f"The VM extension with publisher '{properties['publisher']}' and type '{properties['type']}' could not"
                f" be found in location '{body['location']}'.",
            )
        version = properties["typeHandlerVersion"]
        if not re.fullmatch(r"\d+\.\d+(\.\d+){0,2}", version) or int(version.split(".")[0]) not in _KNOWN[what]:
            raise ArmError(
                404,
                "ArtifactVersionNotFound",
                f"No version found in the artifact repository that satisfies the requested version '{version}' for VM"
                f" extension with publisher '{properties['publisher']}' and type '{properties['type']}'.",
            )
        record = old or Record(resource, body)
        record.inner["secret"] = properties.pop("protectedSettings", None)  # never shown again
        record.body = body
        cloud.records[resource.key] = record
        return record

    def settled(self, cloud: Cloud, record: Record) -> None:
        what = (record.properties["publisher"].lower(), record.properties["type"].lower())
        machine = cloud.find(record.id.parent)
        if what != _GPU_DRIVER or machine is None:
            return
        if not size_of(machine.properties).gpus:
            raise ArmError(
                409,
                "VMExtensionProvisioningError",
                f"VM has reported a failure when processing extension '{record.id.name}' (publisher"
                " 'Microsoft.HpcCompute' and type 'NvidiaGpuDriverLinux'). Error message: 'Enable failed: no NVIDIA GPU"
                " found'.",
            )
        if get(machine.properties, "securityProfile.uefiSettings.secureBootEnabled"):
            raise ArmError(
                409,
                "VMExtensionProvisioningTimeout",
                f"Provisioning of VM extension {record.id.name} has timed out. Extension provisioning has taken too"
                " long to complete. The extension did not report a message. (The unsigned driver does not load under"
                " Secure Boot.)",
            )

    def show(self, cloud: Cloud, record: Record) -> Body:
        return around(record, dict(record.properties))
