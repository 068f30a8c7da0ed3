"""Resource groups: made at once, deleted with all that is in them, in an order that works."""

from __future__ import annotations

import re

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.ids import GROUP_TYPE, ResourceId
from deployer.sandbox.azure.kinds import check_tags
from deployer.sandbox.azure.registry import KINDS
from deployer.sandbox.azure.schema import Kind, canonical, misfit
from deployer.sandbox.azure.state import Body, Cloud, Group, Operation, Record

_BAD = re.compile(r"[^\w.()-]")
FAULT_NAMES = (GROUP_TYPE, "azure-native:resources:ResourceGroup")


def show(group: Group) -> Body:
    body: Body = {
        "id": str(group.id),
        "name": group.id.group,
        "type": GROUP_TYPE,
        "location": group.location,
        "tags": group.tags,
        "properties": {"provisioningState": "Deleting" if group.deleting else "Succeeded"},
    }
    return {**body, "managedBy": group.managed_by} if group.managed_by else body


def check_name(name: str) -> None:
    if len(name) > 90:
        raise ArmError(
            400,
            "InvalidResourceGroup",
            "The provided resource group name exceeds the maximum length of '90' characters.",
        )
    if bad := "".join(sorted(set(_BAD.findall(name)))):
        raise ArmError(
            400,
            "InvalidResourceGroup",
            f"The provided resource group name has these invalid characters: '{bad}'. The name can only be a letter,"
            " digit, '-', '.', '(', ')' or '_'.",
        )
    if name.endswith("."):
        raise ArmError(400, "InvalidResourceGroup", f"The provided resource group name '{name}' cannot end with '.'.")


def put(cloud: Cloud, resource: ResourceId, body: Body) -> tuple[Group, bool]:
    """Makes or changes a group; the second value says whether it is new."""
    check_name(resource.group)
    shape = Kind("object", model="ResourceGroup")
    if wrong := misfit("resources", shape, body):
        raise ArmError(
            400,
            "InvalidRequestContent",
            "The request content was invalid and could not be deserialized: '"
            f"{wrong.detail} '{wrong.model}'. Path '{wrong.path}'.'.",
        )
    fitted = canonical("resources", shape, body)
    check_tags(fitted.get("tags"))
    given = fitted.get("location")
    if not given:
        raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
    place = catalogue.region(given)
    if place is None:
        raise ArmError(
            400,
            "LocationNotAvailableForResourceGroup",
            f"The provided location '{given}' is not available for resource group. List of available regions is"
            f" '{','.join(sorted(catalogue.REGIONS))}'.",
        )
    old = cloud.groups.get(resource.key)
    if old is not None and old.deleting:
        raise being_deleted(old)
    if old is not None and old.location != place:
        raise ArmError(
            409,
            "InvalidResourceGroupLocation",
            f"Invalid resource group location '{place}'. The Resource group already exists in location"
            f" '{old.location}'.",
        )
    if old is None and (message := cloud.faults.failure(*FAULT_NAMES)):
        raise ArmError(500, "InternalServerError", message)
    group = old or Group(resource, place, {})
    group.tags = dict(fitted.get("tags") or {})
    group.managed_by = fitted.get("managedBy")
    cloud.groups[resource.key] = group
    return group, old is None


def being_deleted(group: Group) -> ArmError:
    return ArmError(
        409,
        "ResourceGroupBeingDeleted",
        f"The resource group '{group.id.group}' is in deprovisioning state and cannot perform this operation.",
    )


def members(cloud: Cloud, group: Group) -> list[Record]:
    prefix = group.id.key + "/"
    return [record for record in cloud.records.values() if record.id.key.startswith(prefix)]


def delete(cloud: Cloud, group: Group) -> Operation:
    """Begins the cascade: new resources are refused from now on, all that is inside goes after the delay."""
    group.deleting = True
    seconds = cloud.faults.delay(*FAULT_NAMES)

    def work() -> None:
        _empty(cloud, group)
        cloud.groups.pop(group.id.key, None)

    return cloud.start(group.id.subscription, "", group.location, seconds, work)


def _empty(cloud: Cloud, group: Group) -> None:
    """Deletes what nothing else needs, again and again. What is needed from outside the group stays and fails it."""
    while inside := [record for record in members(cloud, group) if KINDS[record.id.type].tracked]:
        refusals = []
        for record in inside:
            if cloud.find(record.id) is not record:
                continue  # went with a machine
            try:
                KINDS[record.id.type].check_delete(cloud, record)
            except ArmError as error:
                refusals.append({"code": error.code, "target": str(record.id), "message": error.message})
                continue
            KINDS[record.id.type].remove(cloud, record)
        if len(refusals) == len(inside):
            group.deleting = False
            names = ", ".join(str(record.id) for record in inside)
            raise ArmError(
                409,
                "ResourceGroupDeletionBlocked",
                f"Deletion of resource group '{group.id.group}' failed as resources with identifiers '{names}' could"
                " not be deleted. The provisioning state of the resource group will be rolled back.",
                details=refusals,
            )
