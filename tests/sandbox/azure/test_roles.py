"""Role assignments and the caller's own rights: ARM's answers and refusals."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deployer.sandbox.azure.roles import BUILT_IN, CONTRIBUTOR, Permission, permission_of

from .arm_kit import Azure, refused
from .identity_kit import POWER_ON_OFF, READER, SYSTEM, assignment, code, rest, role


@pytest.fixture
def made(azure: Azure) -> Any:
    """A machine with an identity."""
    return azure.vm(azure.network_for_vm(), identity=SYSTEM)


@pytest.fixture
def limited(azure: Azure) -> Iterator[Any]:
    """Gives the subscription's principal fewer rights for the test."""
    yield lambda permission: azure.server.set_rights(azure.subscription, permission)
    azure.server.set_rights(azure.subscription, None)


def listed(azure: Azure, scope: str, **query: str) -> list[str]:
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
    return [one["name"] for one in rest(azure, "GET", path, **query).json()["value"]]


def test_an_assignment_is_made_shown_listed_and_deleted(azure: Azure, made: Any) -> None:
    name, subscription = str(uuid.uuid4()), f"/subscriptions/{azure.subscription}"
    path, body = assignment(made.id, name), role(azure, made.identity.principal_id, description="its own end")
    answer = rest(azure, "PUT", path, body)
    assert answer.status_code == 201
    shown = answer.json()
    assert (shown["id"], shown["name"], shown["type"]) == (path, name, "Microsoft.Authorization/roleAssignments")
    assert shown["properties"] == {
        **shown["properties"],
        "scope": made.id,
        "principalId": made.identity.principal_id,
        "principalType": "ServicePrincipal",
        "roleDefinitionId": f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{POWER_ON_OFF}",
        "description": "its own end",
    }
    assert rest(azure, "GET", path.upper().replace("/SUBSCRIPTIONS", "/subscriptions")).json() == shown
    assert listed(azure, made.id) == listed(azure, subscription) == [name]
    assert listed(azure, subscription, **{"$filter": "atScope()"}) == []
    assert listed(azure, made.id, **{"$filter": f"principalId eq '{uuid.uuid4()}'"}) == []
    assert [item.name for item in azure.server.inventory() if item.id == path] == [name]
    assert rest(azure, "PUT", path, body).status_code == 201  # the same again
    assert rest(azure, "DELETE", path).json()["id"] == path
    assert rest(azure, "DELETE", path).status_code == 204
    assert code(rest(azure, "GET", path)) == (404, "RoleAssignmentNotFound")


def test_it_goes_with_its_machine_and_with_the_group(azure: Azure, made: Any) -> None:
    body = role(azure, made.identity.principal_id)
    name = str(uuid.uuid4())
    rest(azure, "PUT", assignment(made.id, name), body)
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    assert "roleAssignments" not in azure.kinds()
    assert code(rest(azure, "GET", assignment(made.id, name))) == (404, "RoleAssignmentNotFound")
    again = azure.vm(azure.network.network_interfaces.get("rg", "nic"), identity=SYSTEM)
    assert listed(azure, again.id) == []
    # The same name, for the new machine: nothing of the old one is in its way.
    answer = rest(azure, "PUT", assignment(again.id, name), role(azure, again.identity.principal_id))
    assert answer.status_code == 201
    azure.resources.resource_groups.begin_delete("rg").result()
    assert azure.kinds() == {}
    assert rest(azure, "DELETE", assignment(again.id, name)).status_code == 204


def test_what_arm_refuses(azure: Azure, made: Any) -> None:
    principal, name = made.identity.principal_id, str(uuid.uuid4())
    rest(azure, "PUT", assignment(made.id, name), role(azure, principal))

    def refusal(path: str, body: dict[str, Any]) -> tuple[int, str]:
        return code(rest(azure, "PUT", path, body))

    twice = rest(azure, "PUT", assignment(made.id), role(azure, principal))
    assert code(twice) == (409, "RoleAssignmentExists")
    assert name.replace("-", "") in twice.json()["error"]["message"]
    assert refusal(assignment(made.id, name), role(azure, principal, READER)) == (
        400,
        "RoleAssignmentUpdateNotPermitted",
    )
    fresh = assignment(made.id)
    assert refusal(fresh, role(azure, str(uuid.uuid4()))) == (400, "PrincipalNotFound")
    assert refusal(fresh, role(azure, principal, str(uuid.uuid4()))) == (400, "RoleDefinitionDoesNotExist")
    assert refusal(fresh, role(azure, principal, READER, principalType="User")) == (400, "UnmatchedPrincipalType")
    assert refusal(assignment(made.id, "mine"), role(azure, principal)) == (400, "InvalidRoleAssignmentId")
    assert refusal(assignment(made.id + "2"), role(azure, principal)) == (404, "ResourceNotFound")
    assert refusal(fresh, {"properties": {"principalId": principal}}) == (400, "BadRequestFormat")
    assert refusal(fresh, {"properties": {**role(azure, principal)["properties"], "principal": "x"}}) == (
        400,
        "BadRequestFormat",
    )
    assert listed(azure, made.id) == [name]


def test_the_caller_has_all_rights_unless_a_test_gives_it_fewer(azure: Azure, made: Any, limited: Any) -> None:
    path = f"/subscriptions/{azure.subscription}/providers/Microsoft.Authorization/permissions"
    (everything,) = rest(azure, "GET", path).json()["value"]
    assert everything == {"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}
    limited(BUILT_IN[CONTRIBUTOR].permission)
    (fewer,) = rest(azure, "GET", path).json()["value"]
    assert {"Microsoft.Authorization/*/Write", "Microsoft.Authorization/*/Delete"} <= set(fewer["notActions"])
    refusal = rest(azure, "PUT", assignment(made.id), role(azure, made.identity.principal_id))
    assert code(refusal) == (403, "AuthorizationFailed")
    assert "'Microsoft.Authorization/roleAssignments/write'" in refusal.json()["error"]["message"]
    assert listed(azure, made.id) == []
    azure.compute.virtual_machines.begin_power_off("rg", "vm").result()  # a contributor may
    limited(Permission(("Microsoft.Compute/*",)))
    assert code(rest(azure, "GET", path)) == (403, "AuthorizationFailed")
    with refused("AuthorizationFailed", "Microsoft.Network/virtualNetworks/read", status=403):
        azure.network.virtual_networks.get("rg", "vnet")
    limited(None)
    assert rest(azure, "PUT", assignment(made.id), role(azure, made.identity.principal_id)).status_code == 201


def test_roles_are_found_by_their_name(azure: Azure) -> None:
    path = f"/subscriptions/{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions"
    wanted = "roleName eq 'Desktop Virtualization Power On Off Contributor'"
    (found,) = rest(azure, "GET", path, **{"$filter": wanted}).json()["value"]
    assert found["name"] == POWER_ON_OFF
    assert "Microsoft.Compute/virtualMachines/deallocate/action" in found["properties"]["permissions"][0]["actions"]
    assert rest(azure, "GET", f"{path}/{POWER_ON_OFF}").json() == found
    assert code(rest(azure, "GET", f"{path}/{uuid.uuid4()}")) == (404, "RoleDefinitionDoesNotExist")


def test_a_custom_role_is_read_as_az_takes_it() -> None:
    permission = permission_of({"Name": "x", "Actions": ["Microsoft.Compute/*"], "NotActions": ["*/delete"]})
    assert permission.allows("microsoft.compute/virtualMachines/deallocate/action")
    assert not permission.allows("Microsoft.Compute/disks/delete")
    assert not permission.allows("Microsoft.Network/virtualNetworks/read")
    with pytest.raises(ValueError, match="each a list of texts"):
        permission_of({"Actions": "*"})
