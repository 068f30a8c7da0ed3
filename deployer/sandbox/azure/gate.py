"""Who may ask: a token of this server's, of the right tenant, for a subscription that exists; and an api-version."""

from __future__ import annotations

import re
import time
from typing import Any

from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.state import Cloud, Subscription
from deployer.sandbox.azure.web import Request

_VERSION = re.compile(r"20(1[5-9]|2[0-9])-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])(-preview)?\Z")


class Gate:
    """Checks a request's token and its right to a subscription."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def claims(self, request: Request) -> dict[str, Any]:
        challenge = {
            "WWW-Authenticate": f'Bearer authorization_uri="{request.base}/common", error="invalid_token",'
            " error_description=\"The authentication failed because of a missing or bad 'Authorization' header.\""
        }
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                headers=challenge,
            )
        claims = self.cloud.claims(token.strip())
        if claims is None:
            raise ArmError(401, "InvalidAuthenticationToken", "The access token is invalid.", headers=challenge)
        if claims["exp"] < time.time():
            raise ArmError(
                401,
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is in the past. Make sure that a fresh token is used.",
                headers=challenge,
            )
        return claims

    def subscription(self, text: str, claims: dict[str, Any], request: Request) -> Subscription:
        with self.cloud.lock:
            found = self.cloud.subscriptions.get(text.lower())
        if found is None:
            raise ArmError(404, "SubscriptionNotFound", f"The subscription '{text}' could not be found.")
        if found.tenant_id != claims["tid"]:
            raise ArmError(
                401,
                "InvalidAuthenticationTokenTenant",
                f"The access token is from the wrong issuer 'https://sts.windows.net/{claims['tid']}/'. It must match"
                f" the tenant 'https://sts.windows.net/{found.tenant_id}/' associated with this subscription. Please"
                f" use the authority (URL) '{request.base}/{found.tenant_id}' to get the token. Note, if the"
                " subscription is transferred to another tenant there is no impact to the services, but information"
                " about new tenant could take time to propagate (up to an hour).",
            )
        if found.client_id != claims["appid"]:
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The client '{claims['appid']}' with object id '{claims['oid']}' does not have authorization to"
                f" perform action '{_action(request)}' over scope '/subscriptions/{found.id}' or the scope is invalid."
                " If access was recently granted, please refresh your credentials.",
            )
        return found


def check_version(request: Request) -> None:
    version = request.query.get("api-version")
    if not version:
        raise ArmError(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    if not _VERSION.match(version):
        raise ArmError(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{version}' is invalid. The supported versions are '2025-05-01,2025-04-01,2024-11-01,"
            "2024-05-01,2024-03-01,2023-07-01,2022-12-01,2021-04-01,2020-10-01,2019-10-01,2016-06-01'.",
        )


def _action(request: Request) -> str:
    parts = request.parts
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(request.method, "write")
    if len(parts) > 6 and parts[4].lower() == "providers":
        return f"{parts[5]}/{'/'.join(parts[6::2])}/{verb}"
    return f"Microsoft.Resources/subscriptions/{'resourceGroups/' if len(parts) > 2 else ''}{verb}"
