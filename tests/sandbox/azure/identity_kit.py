"""Identities, roles and the metadata service as tests ask them: plain REST, since no SDK for them is installed."""

from __future__ import annotations

import uuid
from typing import Any

import requests

from .arm_kit import Azure

POWER_ON_OFF = "40c5ff49-9181-41f8-ae61-143b0e78555e"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
SYSTEM = {"type": "SystemAssigned"}
RESOURCE = "https://management.azure.com/"
_VERSION = "2024-11-01"


def rest(
    azure: Azure, method: str, path: str, body: Any = None, token: str | None = None, **query: str
) -> requests.Response:
    """One request to ARM, as the subscription's principal or with another token."""
    bearer = token or azure.credential().get_token(f"{azure.server.url}/.default").token
    return requests.request(
        method,
        azure.server.url + path,
        params={"api-version": _VERSION, **query},
        json=body,
        headers={"Authorization": f"Bearer {bearer}"},
        verify=str(azure.server.ca_file),
        timeout=30,
    )


def metadata(azure: Azure, machine: str, headers: dict[str, str] | None = None, **query: str) -> requests.Response:
    """One request to a machine's metadata service; a query of "" leaves that one out."""
    asked = {"api-version": "2018-02-01", "resource": RESOURCE, **query}
    return requests.get(
        f"{azure.server.metadata_url}{machine}/metadata/identity/oauth2/token",
        params={key: value for key, value in asked.items() if value},
        headers={"Metadata": "true"} if headers is None else headers,
        timeout=30,
    )


def token_of(azure: Azure, machine: str) -> str:
    """A machine's own token."""
    answer = metadata(azure, machine)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def assignment(scope: str, name: str | None = None) -> str:
    """The path of a role assignment at a scope."""
    return f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name or uuid.uuid4()}"


def role(azure: Azure, principal: str, role: str = POWER_ON_OFF, **more: Any) -> dict[str, Any]:
    """The body of a role assignment."""
    definition = f"/subscriptions/{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
    given = {"roleDefinitionId": definition, "principalId": principal, "principalType": "ServicePrincipal", **more}
    return {"properties": given}


def code(answer: requests.Response) -> tuple[int, str]:
    """The status and ARM's word of a refusal."""
    return answer.status_code, str(answer.json()["error"]["code"])
