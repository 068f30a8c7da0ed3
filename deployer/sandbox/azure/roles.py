"""Azure's roles: what actions they allow, and which of the built-in ones the emulator knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


@dataclass(frozen=True)
class Permission:
    """Actions with wildcards, less those that `not_actions` take away. A `*` stands for any letters, slashes too."""

    actions: Sequence[str] = ("*",)
    not_actions: Sequence[str] = ()

    def allows(self, action: str) -> bool:
        return _matches(self.actions, action) and not _matches(self.not_actions, action)

    def show(self) -> dict[str, Any]:
        """As ARM writes it."""
        return {
            "actions": list(self.actions),
            "notActions": list(self.not_actions),
            "dataActions": [],
            "notDataActions": [],
        }


def _matches(patterns: Sequence[str], action: str) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def permission_of(role: dict[str, Any]) -> Permission:
    """The permission of a custom role's definition, as `az role definition create` takes it.

    Raises:
        ValueError: it is none, or has what the emulator doesn't know.
    """
    lists = {name: role.get(name, []) for name in ("Actions", "NotActions", "DataActions", "NotDataActions")}
    if not all(isinstance(value, list) and all(isinstance(one, str) for one in value) for value in lists.values()):
        raise ValueError("a role has Actions and NotActions, each a list of texts")
    if lists["DataActions"] or lists["NotDataActions"]:
        raise ValueError("the sandbox emulates no data actions")
    return Permission(tuple(lists["Actions"]), tuple(lists["NotActions"]))


@dataclass(frozen=True)
class Role:
    """A built-in role."""

    id: str
    name: str
    description: str
    permission: Permission

    def show(self, subscription: str) -> dict[str, Any]:
        """As ARM shows it in a subscription."""
        return {
            "id": f"/subscriptions/{subscription}/providers/{DEFINITIONS}/{self.id}",
            "type": DEFINITIONS,
            "name": self.id,
            "properties": {
                "roleName": self.name,
                "type": "BuiltInRole",
                "description": self.description,
                "assignableScopes": ["/"],
                "permissions": [self.permission.show()],
            },
        }


OWNER, CONTRIBUTOR = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "b24988ac-6180-42a0-ab88-20f7382dd24c"
READER, POWER_ON_OFF = "acdd72a7-3385-48ef-bd42-f606fba81ae7", "40c5ff49-9181-41f8-ae61-143b0e78555e"

BUILT_IN = {
    role.id: role
    for role in (
        Role(
            OWNER,
            "Owner",
            "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
            Permission(),
        ),
        Role(
            CONTRIBUTOR,
            "Contributor",
            "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC, manage"
            " assignments in Azure Blueprints, or share image galleries.",
            Permission(
                ("*",),
                (
                    "Microsoft.Authorization/*/Delete",
                    "Microsoft.Authorization/*/Write",
                    "Microsoft.Authorization/elevateAccess/Action",
                    "Microsoft.Blueprint/blueprintAssignments/write",
                    "Microsoft.Blueprint/blueprintAssignments/delete",
                    "Microsoft.Compute/galleries/share/action",
                    "Microsoft.Purview/consents/write",
                    "Microsoft.Purview/consents/delete",
                    "Microsoft.Resources/deploymentStacks/manageDenySetting/action",
                    "Microsoft.Subscription/cancel/action",
                    "Microsoft.Subscription/enable/action",
                ),
            ),
        ),
        Role(
            READER, "Reader", "View all resources, but does not allow you to make any changes.", Permission(("*/read",))
        ),
        Role(
            POWER_ON_OFF,
            "Desktop Virtualization Power On Off Contributor",
            "Provide permission to the Azure Virtual Desktop Resource Provider to start and stop virtual machines.",
            # The role's actions on resources that the emulator has; those of Azure Virtual Desktop are left out.
            Permission(
                (
                    "Microsoft.Authorization/*/read",
                    "Microsoft.Compute/virtualMachines/deallocate/action",
                    "Microsoft.Compute/virtualMachines/instanceView/read",
                    "Microsoft.Compute/virtualMachines/powerOff/action",
                    "Microsoft.Compute/virtualMachines/read",
                    "Microsoft.Compute/virtualMachines/restart/action",
                    "Microsoft.Compute/virtualMachines/start/action",
                    "Microsoft.Insights/alertRules/*",
                    "Microsoft.Insights/eventtypes/values/read",
                    "Microsoft.Resources/deployments/*",
                    "Microsoft.Resources/subscriptions/resourceGroups/read",
                )
            ),
        ),
    )
}
