"""The least Azure custom role with which `fedspan` can make, change and take down one spec's Azure participants. Pure.

Each participant has a resource group of its own, which fedspan makes; so the role is assigned on the subscription. Its
actions are those of Azure's resource providers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LOOK = (
    "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
    "Microsoft.Compute/locations/usages/read",
    "Microsoft.Compute/skus/read",
    "Microsoft.Features/providers/features/read",
    "Microsoft.Network/locations/usages/read",
    "Microsoft.Resources/subscriptions/locations/read",
    "Microsoft.Resources/subscriptions/providers/read",
    "Microsoft.Resources/subscriptions/read",
    "Microsoft.Resources/subscriptions/resources/read",
)
_OWNED = (
    "Microsoft.Compute/disks",
    "Microsoft.Compute/virtualMachines",
    "Microsoft.DevTestLab/schedules",
    "Microsoft.Network/networkInterfaces",
    "Microsoft.Network/networkSecurityGroups",
    "Microsoft.Network/networkSecurityGroups/securityRules",
    "Microsoft.Network/publicIPAddresses",
    "Microsoft.Network/virtualNetworks",
    "Microsoft.Network/virtualNetworks/subnets",
    "Microsoft.Resources/subscriptions/resourceGroups",
)
_MORE = (
    "Microsoft.Compute/locations/operations/read",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/extensions/read",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachines/powerOff/action",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Network/locations/operations/read",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
)


# what whoever makes a machine must be able to read of the account's own, by its kind
_USED = (
    ("Microsoft.Compute/diskEncryptionSets", "Microsoft.Compute/diskEncryptionSets/read"),
    ("Microsoft.Compute/galleries", "Microsoft.Compute/galleries/images/versions/read"),
    ("Microsoft.Compute/images", "Microsoft.Compute/images/read"),
)


# what gives a machine the right to deallocate itself, and the question whether one may
_GIVEN = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Authorization/roleAssignments/delete",
    "Microsoft.Authorization/roleAssignments/read",
    "Microsoft.Authorization/roleAssignments/write",
)


def actions(gpu_driver: bool = False, used: Iterable[str] = (), gives_role: bool = False) -> list[str]:
    """Every action of the role, sorted.

    Args:
        gpu_driver: a size gets NVIDIA's driver as an extension of the machine.
        used: IDs of what participants use of the account's own (images, disk encryption sets, networks).
        gives_role: a site's machine deallocates itself.
    """
    owned = [*_OWNED, *(("Microsoft.Compute/virtualMachines/extensions",) if gpu_driver else ())]
    kinds = {"/".join(one.lower().split("/")[6:8]) for one in used}
    read = {action for kind, action in _USED if kind.lower() in kinds}
    given = _GIVEN if gives_role else ()
    return sorted(
        {*LOOK, *_MORE, *read, *given, *(f"{kind}/{verb}" for kind in owned for verb in ("read", "write", "delete"))}
    )


def role(
    federation: str,
    subscriptions: Iterable[str],
    gpu_driver: bool = False,
    used: Iterable[str] = (),
    gives_role: bool = False,
) -> dict[str, Any]:
    """The role's definition, as `az role definition create --role-definition @FILE` takes it.

    What is used of another subscription than the machine's makes that one a scope too.
    """
    used, subscriptions = list(used), set(subscriptions)
    theirs = {one.split("/")[2].lower() for one in used} - set(map(str.lower, subscriptions))
    return {
        "Name": f"fedspan {federation}",
        "IsCustom": True,
        "Description": f"Makes, changes and takes down the machines of the federation {federation}, and nothing else.",
        "Actions": actions(gpu_driver, used, gives_role),
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": [f"/subscriptions/{one}" for one in sorted(subscriptions | theirs)],
    }
