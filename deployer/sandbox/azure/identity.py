"""The token endpoint and the discovery documents: what azure-identity, MSAL and the `az` command ask for first."""

from __future__ import annotations

import hmac
import uuid
from urllib.parse import parse_qs

from deployer.sandbox.azure.state import Cloud
from deployer.sandbox.azure.web import Answer, Request

TOKEN_SECONDS = 3600
PUBLIC_AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")


def endpoints(request: Request) -> Answer:
    """`/metadata/endpoints`: which hosts make up this cloud. Older versions of the question get the older answer."""
    base = request.base
    authentication = {
        "loginEndpoint": base,
        "audiences": [f"{base}/", base],
        "tenant": "common",
        "identityProvider": "AAD",
    }
    if request.query.get("api-version", "") < "2018":
        return Answer(
            200,
            {
                "galleryEndpoint": base,
                "graphEndpoint": base,
                "portalEndpoint": base,
                "authentication": {"loginEndpoint": base, "audiences": [f"{base}/"]},
            },
        )
    cloud = {
        "name": "fedspan-sandbox",
        "portal": base,
        "authentication": authentication,
        "media": base,
        "graphAudience": f"{base}/",
        "graph": f"{base}/",
        "microsoftGraphResourceId": f"{base}/",
        "resourceManager": f"{base}/",
        "gallery": f"{base}/",
        "batch": f"{base}/",
        "activeDirectoryDataLake": f"{base}/",
        "sqlManagement": f"{base}/",
        "vmImageAliasDoc": f"{base}/aliases.json",
        "suffixes": {"storage": "core.sandbox.invalid", "keyVaultDns": "vault.sandbox.invalid"},
    }
    return Answer(200, [cloud])


def discovery(request: Request) -> Answer | None:
    """OpenID's and MSAL's discovery documents, or `None` for another path."""
    path, base = request.path.rstrip("/").lower(), request.base
    if path == "/common/discovery/instance":
        host = base.removeprefix("https://")
        return Answer(
            200,
            {
                "tenant_discovery_endpoint": f"{base}/common/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            },
        )
    if not path.endswith("/.well-known/openid-configuration"):
        return None
    tenant = request.parts[0]
    version = "/v2.0" if "v2.0" in request.parts else ""
    return Answer(
        200,
        {
            "token_endpoint": f"{base}/{tenant}/oauth2{version}/token",
            "authorization_endpoint": f"{base}/{tenant}/oauth2{version}/authorize",
            "device_authorization_endpoint": f"{base}/{tenant}/oauth2{version}/devicecode",
            "issuer": f"{base}/{tenant}{version}",
            "jwks_uri": f"{base}/{tenant}/discovery{version}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        },
    )


def token(cloud: Cloud, request: Request) -> Answer | None:
    """The token endpoint (client credentials only), or `None` for another path."""
    parts = request.parts
    if len(parts) < 3 or parts[1] != "oauth2" or parts[-1] != "token" or request.method != "POST":
        return None
    form = {key: values[0] for key, values in parse_qs(request.content.decode("utf-8", "replace")).items()}
    tenant = parts[0]
    owners = [one for one in cloud.subscriptions.values() if one.tenant_id.lower() == tenant.lower()]
    if not owners:
        return _refusal(
            90002,
            "invalid_request",
            f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the"
            " correct cloud.",
        )
    if form.get("grant_type") != "client_credentials":
        return _refusal(70003, "unsupported_grant_type", "The app requested an unsupported grant type.")
    client = form.get("client_id", "")
    known = [one for one in owners if one.client_id.lower() == client.lower()]
    if not known:
        return _refusal(
            700016,
            "unauthorized_client",
            f"Application with identifier '{client}' was not found in the directory '{tenant}'.",
        )
    if not hmac.compare_digest(form.get("client_secret", "").encode(), known[0].client_secret.encode()):
        return _refusal(
            7000215,
            "invalid_client",
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value,"
            f" not the client secret ID, for a secret added to app '{client}'.",
            401,
        )
    audience = (form.get("scope") or form.get("resource") or "").removesuffix("/.default").rstrip("/")
    if audience not in (request.base, *PUBLIC_AUDIENCES):
        return _refusal(500011, "invalid_resource", f"The resource principal named {audience} was not found.")
    issued = cloud.issue_token(known[0].tenant_id, known[0].client_id, audience, TOKEN_SECONDS)
    return Answer(
        200,
        {"token_type": "Bearer", "expires_in": TOKEN_SECONDS, "ext_expires_in": TOKEN_SECONDS, "access_token": issued},
    )


def _refusal(number: int, error: str, text: str, status: int = 400) -> Answer:
    trace = str(uuid.uuid4())
    return Answer(
        status,
        {
            "error": error,
            "error_description": f"AADSTS{number}: {text} Trace ID: {trace}",
            "error_codes": [number],
            "trace_id": trace,
        },
    )
