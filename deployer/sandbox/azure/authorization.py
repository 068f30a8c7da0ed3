"""Microsoft.Authorization, an extension of every scope: role assignments, built-in roles, the caller's permissions."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.sandbox.azure import machine_identity, rights
from deployer.sandbox.azure.arm_errors import ArmError, group_not_found, resource_not_found
from deployer.sandbox.azure.ids import parse
from deployer.sandbox.azure.roles import BUILT_IN
from deployer.sandbox.azure.schema import Kind, canonical, misfit
from deployer.sandbox.azure.state import Assignment, Body, Cloud, Subscription, now, object_id
from deployer.sandbox.azure.web import Answer, Request

NAMESPACE = "microsoft.authorization"
ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
_FAULT_NAMES = (ASSIGNMENTS, "azure-native:authorization:RoleAssignment")
_PRINCIPAL_FILTER = re.compile(r"(?:principalId\s+eq|assignedTo\()\s*'([^']*)'\)?\Z", re.IGNORECASE)
_NAME_FILTER = re.compile(r"roleName\s+eq\s+'([^']*)'\Z", re.IGNORECASE)


def split(parts: Sequence[str]) -> tuple[str, list[str]] | None:
    """The scope and the rest of a path of this provider; None for any other path."""
    for at in range(2, len(parts) - 1, 2):
        if parts[at].lower() == "providers" and parts[at + 1].lower() == NAMESPACE and len(parts) > at + 2:
            return "/" + "/".join(parts[:at]), list(parts[at + 2 :])
    return None


def answer(
    cloud: Cloud, one: Subscription, claims: Mapping[str, Any], where: tuple[str, list[str]], request: Request
) -> Answer:
    """The answer to a request of this provider. Called with the lock held, and only if the caller may ask."""
    (scope, rest), method = where, request.method
    kind, name = rest[0].lower(), rest[1] if len(rest) == 2 else None
    if len(rest) <= 2 and kind == "roleassignments":
        if name is None and method == "GET":
            return _list(cloud, scope, request)
        if name is not None and method == "PUT":
            return _put(cloud, one, claims, scope, name, request)
        if name is not None and method in ("GET", "DELETE"):
            return _get(cloud, scope, name) if method == "GET" else _delete(cloud, scope, name)
    if len(rest) <= 2 and kind == "roledefinitions" and method == "GET":
        return _roles(one, request) if name is None else Answer(200, _role(name).show(one.id))
    if rest[0].lower() == "permissions" and len(rest) == 1 and method == "GET":
        _home(cloud, scope)
        return Answer(200, {"value": [one.show() for one in rights.held(cloud, one, claims, scope)]})
    raise ArmError(404, "NotFound", f"No HTTP resource was found that matches the request {method} '{request.path}'.")


# -- roles -------------------------------------------------------------------------------------------------------
def _roles(one: Subscription, request: Request) -> Answer:
    wanted = _NAME_FILTER.match(request.query.get("$filter", "").strip())
    found = [role for role in BUILT_IN.values() if wanted is None or role.name == wanted.group(1)]
    return Answer(200, {"value": [role.show(one.id) for role in found]})


def _role(name: str, status: int = 404) -> Any:
    found = BUILT_IN.get(name.lower())
    if found is None:
        raise ArmError(
            status, "RoleDefinitionDoesNotExist", f"The specified role definition with ID '{name}' does not exist."
        )
    return found


# -- role assignments --------------------------------------------------------------------------------------------
def _put(cloud: Cloud, one: Subscription, claims: Mapping[str, Any], scope: str, name: str, request: Request) -> Answer:
    if not _guid(name):
        raise ArmError(
            400,
            "InvalidRoleAssignmentId",
            f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.",
        )
    home = _home(cloud, scope)
    properties = _properties(request)
    role = _role(str(properties["roleDefinitionId"]).rsplit("/", 1)[-1], 400)
    principal = str(properties["principalId"]).lower()
    _check_principal(cloud, one, principal, properties.get("principalType"))
    same = next((r for r in _at(cloud, scope) if (r.principal, r.role) == (principal, role.id)), None)
    old = cloud.assignments.get(_key(scope, name))
    if old is not None and old is not same:
        raise ArmError(
            400,
            "RoleAssignmentUpdateNotPermitted",
            "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
        )
    if same is not None and old is None:
        text = "The role assignment already exists. The ID of the existing role assignment is"
        raise ArmError(409, "RoleAssignmentExists", f"{text} {same.name.replace('-', '')}.")
    if old is None and (message := cloud.faults.failure(*_FAULT_NAMES)):
        raise ArmError(500, "InternalServerError", message)
    properties.update(principalId=principal, roleDefinitionId=role.show(one.id)["id"], principalType="ServicePrincipal")
    # Azure tells its own services of an assignment only after a while: a delay that is asked for is that.
    in_force = time.monotonic() + cloud.faults.delay(*_FAULT_NAMES)
    record = old or Assignment(name, scope, home, role.id, principal, claims["oid"], in_force, properties)
    record.body, record.updated = properties, now()
    cloud.assignments[_key(scope, name)] = record
    return Answer(201, show(record))


def _properties(request: Request) -> Body:
    """What the body asks for. Raises ArmError where that is no role assignment."""
    body = request.json()
    shape = Kind("object", model="RoleAssignment")
    wrong = misfit("authorization", shape, body)
    properties: Body = (canonical("authorization", shape, body).get("properties") or {}) if wrong is None else {}
    if not _guid(str(properties.get("principalId"))) or not properties.get("roleDefinitionId"):
        raise ArmError(400, "BadRequestFormat", "The request was incorrectly formatted.")
    if properties.get("condition") or properties.get("delegatedManagedIdentityResourceId"):
        raise ArmError(400, "BadRequestFormat", "The sandbox knows no conditions and no delegated identities.")
    return properties


def _check_principal(cloud: Cloud, one: Subscription, principal: str, kind: str | None) -> None:
    """The principal is a machine's identity or a subscription's service principal, of the subscription's tenant."""
    machine = machine_identity.owner(cloud, principal)
    homes = [machine.id.subscription.lower()] if machine else []
    homes += [other.id for other in cloud.subscriptions.values() if object_id(other.client_id) == principal]
    if not any(cloud.subscriptions[home].tenant_id == one.tenant_id for home in homes):
        raise ArmError(
            400,
            "PrincipalNotFound",
            f"Principal {principal.replace('-', '')} does not exist in the directory {one.tenant_id}. Check that you"
            " have the correct principal ID. If you are creating this principal and then immediately assigning a role,"
            " this error might be related to a replication delay. In this case, set the role assignment principalType"
            " property to a value, such as ServicePrincipal, User, or Group. See https://aka.ms/docs-principaltype",
        )
    if kind not in (None, "ServicePrincipal"):
        raise ArmError(
            400,
            "UnmatchedPrincipalType",
            f"The PrincipalId '{principal.replace('-', '')}' has type 'ServicePrincipal' , which is different from"
            f" specified PrinciaplType '{kind}'.",
        )


def _get(cloud: Cloud, scope: str, name: str) -> Answer:
    rights.standing(cloud)
    found = cloud.assignments.get(_key(scope, name))
    if found is None:
        raise ArmError(404, "RoleAssignmentNotFound", f"The role assignment '{name}' is not found.")
    return Answer(200, show(found))


def _delete(cloud: Cloud, scope: str, name: str) -> Answer:
    rights.standing(cloud)
    gone = cloud.assignments.pop(_key(scope, name), None)
    return Answer(204) if gone is None else Answer(200, show(gone))


def _list(cloud: Cloud, scope: str, request: Request) -> Answer:
    """Those at the scope, above it, and (without `atScope()`) beneath it."""
    _home(cloud, scope)
    text = request.query.get("$filter", "").strip()
    by_principal = _PRINCIPAL_FILTER.match(text)
    only_here = text.lower() == "atscope()"
    if text and not (by_principal or only_here):
        raise ArmError(400, "BadRequestFormat", f"The sandbox knows no filter '{text}' of role assignments.")
    found = [
        one
        for one in rights.standing(cloud)
        if (rights.within(scope, one.scope) or (rights.within(one.scope, scope) and not only_here))
        and (by_principal is None or one.principal == by_principal.group(1).lower())
    ]
    return Answer(200, {"value": [show(one) for one in found]})


def show(one: Assignment) -> Body:
    """As GET answers it."""
    unset = dict.fromkeys(("condition", "conditionVersion", "delegatedManagedIdentityResourceId", "description"))
    made = {"createdOn": one.created, "updatedOn": one.updated, "createdBy": one.by, "updatedBy": one.by}
    properties = {**unset, **one.body, "scope": one.scope, **made}
    return {"properties": properties, "id": one.id, "type": ASSIGNMENTS, "name": one.name}


def _home(cloud: Cloud, scope: str) -> Any:
    """What lies at a scope. Raises ARM's 404 where nothing does."""
    found = cloud.at(scope)
    if found is not None:
        return found
    resource = parse(scope)
    if resource is None:
        raise ArmError(404, "MissingSubscription", f"The sandbox knows no scope '{scope}'.")
    if resource.group_id.lower() not in cloud.groups:
        raise group_not_found(resource.group)
    raise resource_not_found(resource.type, resource.name, resource.group)


def _at(cloud: Cloud, scope: str) -> list[Assignment]:
    return [one for one in rights.standing(cloud) if one.scope.lower() == scope.lower()]


def _key(scope: str, name: str) -> str:
    return f"{scope}/{name}".lower()


def _guid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
