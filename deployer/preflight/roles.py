"""Azure: whether one may give a machine the right to deallocate itself. Contributors may not give any rights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking

GIVE = "Microsoft.Authorization/roleAssignments/write"
TAKE = "Microsoft.Authorization/roleAssignments/delete"
ASSIGNMENT = "azure-native:authorization:RoleAssignment"


def check(place: Place) -> Iterable[Finding]:
    """For sites whose machine is going to get `self_deallocate`; nothing where none is."""
    if place.cloud != "azure":
        return
    making = [one.name for one in place.wanted if one.creates[ASSIGNMENT]]
    if not making:
        return
    with asking("Microsoft.Authorization/permissions/read"):
        document, _ = place.azure.get("/providers/Microsoft.Authorization/permissions", "2022-04-01")
    lacking = [action for action in (GIVE, TAKE) if not allowed(document.get("value") or (), action)]
    if not lacking:
        yield Finding("roles", "you may let a machine deallocate itself")
        return
    yield Finding(
        "roles",
        f"you may not let a machine deallocate itself in subscription {place.owner}",
        "refused",
        why=f"{', '.join(making)} {'ask' if len(making) > 1 else 'asks'} for self_deallocate, which gives a role; "
        f"these credentials lack {' and '.join(lacking)} (Contributor has neither)",
        next_step="leave self_deallocate out of federation.yml, or ask the subscription's owner for the role that "
        "fedspan policy azure prints",
    )


def allowed(permissions: Iterable[Mapping[str, Any]], action: str) -> bool:
    """Whether one of the caller's roles, as Microsoft.Authorization/permissions tells them, has an action. Pure."""
    return any(
        _matches(role.get("actions") or (), action) and not _matches(role.get("notActions") or (), action)
        for role in permissions
    )


def _matches(patterns: Sequence[str], action: str) -> bool:
    """Whether an action is one of these: `*` stands for anything, and letters are small or capital alike."""
    regexes = (".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns)
    return any(re.fullmatch(regex, action, re.IGNORECASE) for regex in regexes)
