"""A machine's own identity: given and taken, its tokens from the metadata service, and what a token may do."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from .arm_kit import Azure, refused
from .identity_kit import READER, RESOURCE, SYSTEM, assignment, code, metadata, rest, role, token_of


def machine(azure: Azure, **change: Any) -> Any:
    return azure.vm(azure.network_for_vm(), **change)


def test_an_identity_is_given_at_the_making_and_stays_the_same_while_it_stands(azure: Azure) -> None:
    made = machine(azure, identity=SYSTEM)
    tenant = azure.environment["ARM_TENANT_ID"]
    assert (made.identity.type, made.identity.tenant_id) == ("SystemAssigned", tenant)
    assert str(uuid.UUID(made.identity.principal_id)) == made.identity.principal_id
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    azure.compute.virtual_machines.begin_update("rg", "vm", {"tags": {"a": "b"}}).result()
    azure.compute.virtual_machines.begin_start("rg", "vm").result()
    assert azure.compute.virtual_machines.get("rg", "vm").identity.principal_id == made.identity.principal_id


def test_a_standing_machine_gets_an_identity_keeps_it_unless_told_and_loses_it_by_none(azure: Azure) -> None:
    assert machine(azure).identity is None
    update = azure.compute.virtual_machines.begin_update
    first = update("rg", "vm", {"identity": SYSTEM}).result().identity.principal_id
    # A body that says nothing of it takes nothing away.
    again = azure.vm(azure.network.network_interfaces.get("rg", "nic"))
    assert again.identity.principal_id == first
    assert update("rg", "vm", {"identity": {"type": "None"}}).result().identity is None
    assert azure.compute.virtual_machines.get("rg", "vm").identity is None
    second = update("rg", "vm", {"identity": SYSTEM}).result().identity.principal_id
    assert second != first


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/s/x": {}}},
        {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {"/subscriptions/s/x": {}}},
        {"type": "SystemAssigned", "userAssignedIdentities": {"/subscriptions/s/x": {}}},
        {"type": "Systemassigned by mistake"},
        {},
    ],
)
def test_other_kinds_of_identities_are_refused_and_nothing_is_made(azure: Azure, wrong: dict[str, Any]) -> None:
    nic = azure.network_for_vm()
    with refused("InvalidParameter", "identity"):
        azure.vm(nic, identity=wrong)
    assert "virtualMachines" not in azure.kinds()


def test_the_metadata_service_gives_a_token_of_the_machines_identity(azure: Azure) -> None:
    made = machine(azure, identity=SYSTEM)
    answer = metadata(azure, made.id)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["token_type"], body["resource"], body["expires_in"]) == ("Bearer", RESOURCE, "86400")
    assert abs(int(body["expires_on"]) - time.time() - 86400) < 60
    part = body["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert (claims["oid"], claims["aud"]) == (made.identity.principal_id, RESOURCE)
    assert (claims["appid"], claims["xms_mirid"]) == (body["client_id"], made.id)
    assert metadata(azure, made.id, client_id=body["client_id"]).status_code == 200


def test_the_metadata_service_refuses_what_the_real_one_refuses(azure: Azure) -> None:
    made = machine(azure, identity=SYSTEM)

    def said(answer: requests.Response) -> tuple[int, str, str]:
        return answer.status_code, answer.json()["error"], answer.json()["error_description"]

    wrong = 400, "invalid_request"
    assert said(metadata(azure, made.id, {})) == (*wrong, "Required metadata header not specified")
    forwarded = metadata(azure, made.id, {"Metadata": "true", "X-Forwarded-For": "10.0.0.1"})
    assert said(forwarded)[:2] == wrong
    assert said(metadata(azure, made.id, resource="")) == (*wrong, "Required audience parameter not specified")
    assert said(metadata(azure, made.id, **{"api-version": ""}))[:2] == wrong
    assert said(metadata(azure, made.id, client_id=str(uuid.uuid4()))) == (*wrong, "Identity not found")
    assert said(metadata(azure, made.id, resource="https://vault.azure.net"))[:2] == (400, "invalid_resource")
    azure.compute.virtual_machines.begin_update("rg", "vm", {"identity": {"type": "None"}}).result()
    assert said(metadata(azure, made.id)) == (*wrong, "Identity not found")
    assert metadata(azure, made.id + "2").status_code == 404
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    assert metadata(azure, made.id).status_code == 404  # nobody is there to ask


def test_a_machine_deallocates_itself_by_its_role_and_can_do_nothing_else(azure: Azure) -> None:
    nic = azure.network_for_vm()
    other = azure.vm(nic, name="other", identity=SYSTEM)
    # Another interface: the same network.
    subnet = azure.network.subnets.get("rg", "vnet", "subnet")
    made = azure.vm(
        azure.nic(subnet, name="nic2"), identity=SYSTEM, properties={"storageProfile": {"osDisk": {"name": "os2"}}}
    )
    own = token_of(azure, made.id)
    refusal = rest(azure, "POST", f"{made.id}/deallocate", token=own)
    assert code(refusal) == (403, "AuthorizationFailed")
    for word in ("Microsoft.Compute/virtualMachines/deallocate/action", f"over scope '{made.id}'"):
        assert word in refusal.json()["error"]["message"]
    assert rest(azure, "GET", "/subscriptions", token=own).json()["value"] == []

    assert rest(azure, "PUT", assignment(made.id), role(azure, made.identity.principal_id)).status_code == 201
    group = f"/subscriptions/{azure.subscription}/resourceGroups/rg"
    for method, path in (
        ("POST", f"{other.id}/deallocate"),
        ("DELETE", made.id),
        ("PUT", made.id),
        ("GET", nic.id),
        ("GET", group),
        ("DELETE", group),
        ("PUT", assignment(made.id)),
        ("PUT", f"{made.id}/extensions/x"),
        ("GET", f"{group}/providers/Microsoft.Compute/virtualMachines"),
    ):
        assert code(rest(azure, method, path, {}, token=own)) == (403, "AuthorizationFailed"), (method, path)
    assert rest(azure, "GET", made.id, token=own).json()["id"] == made.id
    answer = rest(azure, "POST", f"{made.id}/deallocate", token=own)
    assert answer.status_code == 202
    poll = requests.get(
        answer.headers["Azure-AsyncOperation"],
        headers={"Authorization": f"Bearer {own}"},
        verify=str(azure.server.ca_file),
        timeout=30,
    )
    assert poll.json()["status"] == "Succeeded"
    powers = {m.id.split("#")[0]: m.running for m in azure.server.machines() if m.account == azure.subscription}
    assert powers == {made.id: False, other.id: True}


def test_a_role_counts_beneath_its_scope_and_no_longer_than_it_stands(azure: Azure) -> None:
    made = machine(azure, identity=SYSTEM)
    own = token_of(azure, made.id)
    path = assignment(f"/subscriptions/{azure.subscription}/resourceGroups/RG")  # as somebody else writes it
    assert rest(azure, "PUT", path, role(azure, made.identity.principal_id, READER)).status_code == 201
    assert rest(azure, "GET", made.id, token=own).status_code == 200
    assert code(rest(azure, "POST", f"{made.id}/deallocate", token=own))[0] == 403
    assert rest(azure, "DELETE", path).status_code == 200
    assert code(rest(azure, "GET", made.id, token=own))[0] == 403


def test_a_fresh_assignment_is_not_known_everywhere_at_once_if_a_test_says_so(
    azure: Azure, fault: Callable[..., None]
) -> None:
    made = machine(azure, identity=SYSTEM)
    own = token_of(azure, made.id)
    fault(delays={"Microsoft.Authorization/roleAssignments": 1})
    begun = time.monotonic()
    assert rest(azure, "PUT", assignment(made.id), role(azure, made.identity.principal_id)).status_code == 201
    while (answer := rest(azure, "POST", f"{made.id}/deallocate", token=own)).status_code != 202:
        assert code(answer) == (403, "AuthorizationFailed")
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    assert time.monotonic() - begun >= 1
