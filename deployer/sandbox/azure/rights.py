"""Who may do what: the action and the scope of a request, and what a principal's rights and roles allow there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.sandbox.azure.roles import BUILT_IN, Permission
from deployer.sandbox.azure.state import Assignment, Cloud, Subscription
from deployer.sandbox.azure.web import Request

_VERBS = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}
_GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"


def asked(method: str, parts: Sequence[str]) -> tuple[str, str]:
    """A request's action, as roles name it, and its scope. Pure.

    `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/V/deallocate` by POST is
    Microsoft.Compute/virtualMachines/deallocate/action at the machine; of `…/providers/A/b/c/providers/D/e/f` the
    last provider decides.
    """
    words, verb = [part.lower() for part in parts], _VERBS.get(method, "write")
    # Words and names alternate, so that no name of a resource is taken for the word.
    at = max((i for i in range(2, len(words), 2) if words[i] == "providers"), default=None)
    if "microsoft.features" in words[2:4]:
        named = words[-1] in ("register", "unregister")
        return f"Microsoft.Features/providers/features/{f'{words[-1]}/action' if named else verb}", _path(parts[:2])
    if at is None:
        return _above(words, verb), _path(parts[:4] if words[2:3] == ["resourcegroups"] else parts[:2])
    namespace, steps = "".join(parts[at + 1 : at + 2]), list(parts[at + 2 :])
    if not steps:
        return f"Microsoft.Resources/subscriptions/providers/{verb}", _path(parts[:at])
    kinds = "/".join(steps[::2])
    if len(steps) % 2:  # a list, a view, or an action of what the path before names
        return f"{namespace}/{kinds}/{verb}", _path(parts[:at] if len(steps) == 1 else parts[:-1])
    return f"{namespace}/{kinds}/{verb}", _path(parts)


def _above(words: Sequence[str], verb: str) -> str:
    """The action of a path without a provider."""
    if len(words) == 2:
        return f"Microsoft.Resources/subscriptions/{verb}"
    if words[2] != "resourcegroups":
        return f"Microsoft.Resources/subscriptions/{words[2]}/{verb}"
    return f"{_GROUPS}/resources/{verb}" if len(words) > 4 else f"{_GROUPS}/{verb}"


def _path(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)


def within(scope: str, other: str) -> bool:
    """Whether `scope` is `other` or lies beneath it."""
    return f"{scope}/".lower().startswith(f"{other}/".lower())


def standing(cloud: Cloud) -> list[Assignment]:
    """The role assignments that there are. One whose machine, group or subscription has gone has gone with it."""
    for key, one in list(cloud.assignments.items()):
        if cloud.at(one.scope) is not one.home:
            del cloud.assignments[key]
    return list(cloud.assignments.values())


def held(cloud: Cloud, one: Subscription, claims: Mapping[str, Any], scope: str) -> list[Permission]:
    """What the principal of a token may do at a scope of a subscription: by its own rights, and by its roles."""
    found = [cloud.rights.get(one.id, Permission())] if claims["appid"] == one.client_id else []
    now = time.monotonic()
    return found + [
        BUILT_IN[role.role].permission
        for role in standing(cloud)
        if role.principal == claims["oid"] and within(scope, role.scope) and now >= role.in_force
    ]


def allowed(cloud: Cloud, one: Subscription, claims: Mapping[str, Any], request: Request) -> bool:
    """Whether the principal of a token may do what it asks."""
    action, scope = asked(request.method, request.parts)
    return any(permission.allows(action) for permission in held(cloud, one, claims, scope))


def sees(cloud: Cloud, one: Subscription, claims: Mapping[str, Any]) -> bool:
    """Whether a subscription is one of those that the principal of a token has anything to do with."""
    mine = (role.scope for role in standing(cloud) if role.principal == claims["oid"])
    return claims["appid"] == one.client_id or any(within(scope, f"/subscriptions/{one.id}") for scope in mine)
