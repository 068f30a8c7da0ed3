"""Whose credentials are these? Asked before anything is made, with the identity that the engine will use.

The engine's providers and this check must agree. AWS: both take the profile of the spec, else the usual chain. Azure:
the provider reads ARM_*, azure-identity reads AZURE_*; here ARM_* decides, AZURE_* stands in where ARM_* is missing,
and without either the `az` command's login is used, as the provider does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.errors import CredentialsError

# azure-identity's name -> the provider's name
AZURE_TWINS = {
    "AZURE_CLIENT_ID": "ARM_CLIENT_ID",
    "AZURE_CLIENT_SECRET": "ARM_CLIENT_SECRET",
    "AZURE_TENANT_ID": "ARM_TENANT_ID",
    "AZURE_CLIENT_CERTIFICATE_PATH": "ARM_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD": "ARM_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_SUBSCRIPTION_ID": "ARM_SUBSCRIPTION_ID",
    "AZURE_FEDERATED_TOKEN_FILE": "ARM_OIDC_TOKEN_FILE_PATH",
}


def check_account(participant: str, word: str, wanted: str | None, found: str, profile: str | None = None) -> None:
    """Refuse credentials of another account (AWS) or subscription (Azure) than the spec names.

    Raises:
        CredentialsError: they differ.
    """
    if wanted is None or wanted.lower() == found.lower():
        return
    raise CredentialsError(
        f"these are the credentials of another {word}",
        participant=participant,
        why=f"federation.yml says {word} {wanted}, "
        + (f"profile {profile} belongs to {found}" if profile else f"the credentials found belong to {found}"),
        next_step=f"aws login for {wanted}, or mend `profile:` in federation.yml"
        if word == "account"
        else f"az account set --subscription {wanted}",
    )


def azure_environment(environ: Mapping[str, str], subscription: str | None = None) -> dict[str, str]:
    """`environ` with both families of names saying the same; ARM_* decides, the subscription is pinned. Pure."""
    result = dict(environ)
    for identity_name, provider_name in AZURE_TWINS.items():
        value = result.get(provider_name) or result.get(identity_name)
        if value:
            result[provider_name] = value
            result[identity_name] = value
    if subscription:
        result["ARM_SUBSCRIPTION_ID"] = result["AZURE_SUBSCRIPTION_ID"] = subscription
    return result


def aws_identity(participant: str, profile: str | None, region: str) -> str:
    """The account id of the credentials that a participant's stack would use.

    Raises:
        CredentialsError: none are found, they are expired, or AWS refuses them.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    login = f"aws sso login --profile {profile}" if profile else "aws sso login, or aws configure"
    try:
        session = boto3.session.Session(profile_name=profile, region_name=region)
        client = session.client("sts", config=Config(connect_timeout=10, read_timeout=10, retries={"max_attempts": 2}))
        account: str = client.get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise CredentialsError(
            "no usable AWS credentials", participant=participant, why=str(error), next_step=login
        ) from error
    return account


def azure_credential(environ: Mapping[str, str]) -> Any:
    """The azure-identity credential that is the same identity as the provider's, by the provider's own order."""
    from azure import identity

    env = azure_environment(environ)
    tenant, client = env.get("ARM_TENANT_ID"), env.get("ARM_CLIENT_ID")
    if tenant and client and (secret := env.get("ARM_CLIENT_SECRET")):
        return identity.ClientSecretCredential(tenant, client, secret)
    if tenant and client and (certificate := env.get("ARM_CLIENT_CERTIFICATE_PATH")):
        return identity.CertificateCredential(
            tenant, client, certificate, password=env.get("ARM_CLIENT_CERTIFICATE_PASSWORD")
        )
    if tenant and client and env.get("ARM_USE_OIDC") and (token := env.get("ARM_OIDC_TOKEN_FILE_PATH")):
        return identity.WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=token)
    if env.get("ARM_USE_MSI"):
        return identity.ManagedIdentityCredential(client_id=client) if client else identity.ManagedIdentityCredential()
    return identity.AzureCliCredential(tenant_id=tenant) if tenant else identity.AzureCliCredential()


def azure_identity(participant: str, wanted: str | None, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Subscription and tenant that a participant's stack would use; the subscription must be visible to the identity.

    Raises:
        CredentialsError: no login, an expired one, or a subscription that it can't see.
    """
    from azure.core.exceptions import AzureError

    try:
        visible = azure_subscriptions(azure_credential(environ))
    except (AzureError, ValueError) as error:
        raise CredentialsError(
            "no usable Azure credentials",
            participant=participant,
            why=str(error).splitlines()[0],
            next_step="az login, or set ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID and ARM_SUBSCRIPTION_ID",
        ) from error
    pinned = wanted or azure_environment(environ).get("ARM_SUBSCRIPTION_ID")
    if pinned is None and len(visible) == 1:
        pinned = next(iter(visible))
    if pinned is None:
        raise CredentialsError(
            "which Azure subscription?",
            participant=participant,
            why=f"this login sees {len(visible)}",
            next_step="set `subscription:` in federation.yml, or ARM_SUBSCRIPTION_ID",
        )
    if pinned.lower() not in visible:
        raise CredentialsError(
            "these are the credentials of another subscription",
            participant=participant,
            why=f"this login can't see subscription {pinned}",
            next_step=f"az login, then az account set --subscription {pinned}",
        )
    return pinned, visible[pinned.lower()]


def azure_subscriptions(credential: Any, base_url: str | None = None) -> dict[str, str | None]:
    """The subscriptions that an identity can see: id in small letters -> tenant.

    Asked of ARM directly: the SDK's package for subscriptions is one more dependency for this one question.

    Raises:
        AzureError: no login, or ARM refuses.
    """
    from azure.core.rest import HttpRequest
    from azure.mgmt.resource.resources import ResourceManagementClient

    where: dict[str, Any] = {}
    if base_url is not None:
        where = {"base_url": base_url, "credential_scopes": [f"{base_url}/.default"]}
    client = ResourceManagementClient(credential, "unused", **where)
    found: dict[str, str | None] = {}
    url: str | None = "/subscriptions?api-version=2022-12-01"
    while url:
        answer = client.send_request(HttpRequest("GET", url))
        answer.raise_for_status()
        document = answer.json()
        for entry in document.get("value", []):
            found[str(entry["subscriptionId"]).lower()] = entry.get("tenantId")
        url = document.get("nextLink")
    return found
