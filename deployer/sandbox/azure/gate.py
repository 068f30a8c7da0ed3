"""Who may ask: a token of this server's, of the right tenant, for a subscription that exists; an api-version; and the
right to what is asked for."""

from __future__ import annotations

import re
import time
from typing import Any

from deployer.sandbox.azure import rights
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
        return found

    def authorize(self, one: Subscription, claims: dict[str, Any], request: Request, *, poll: bool) -> None:
        """Refuses what the caller's rights and roles do not allow.

        A poll of an operation needs no right of its own: whoever has anything to do with the subscription may.
        """
        with self.cloud.lock:
            may = rights.sees(self.cloud, one, claims) if poll else rights.allowed(self.cloud, one, claims, request)
        if may:
            return
        action, scope = rights.asked(request.method, request.parts)
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{claims['appid']}' with object id '{claims['oid']}' does not have authorization to perform"
            f" action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please"
            " refresh your credentials.",
        )


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
