"""Whose credentials these are, whether the account may be used, and whether they expire while `up` works."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from deployer.errors import CredentialsError
from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking

SOON = timedelta(minutes=60)
"""An `up` of a large federation takes less; what expires earlier is worth a word."""
TOO_SOON = timedelta(minutes=10)
"""An `up` takes longer: the engine would lose its credentials half way."""


def check(place: Place) -> Iterable[Finding]:
    """Account or subscription as the cloud names it; then the credentials' expiry, where it is known."""
    if place.cloud == "aws":
        with asking("sts:GetCallerIdentity"):
            identity = place.aws("sts").get_caller_identity()
        yield Finding("credentials", f"account {identity['Account']} as {identity['Arn']}")
        credentials = place.clients.session.get_credentials()  # type: ignore[union-attr]  # AWS's
        yield from expiry(place.title, aws_expiry(credentials), "aws sso login, or new temporary credentials")
        return
    with asking("Microsoft.Resources/subscriptions/read"):
        document, _ = place.azure.get("", "2022-12-01")
    name, state = document.get("displayName", ""), document.get("state", "")
    yield Finding("credentials", f"subscription {place.owner} ({name}), tenant {document.get('tenantId')}")
    if state not in ("Enabled", ""):
        yield Finding(
            "credentials",
            f"subscription {place.owner} is {state.lower()}",
            "refused",
            why="nothing can be made in it",
            next_step="enable it in the portal, or name another `subscription:`",
            error=CredentialsError,
        )
    yield from expiry(place.title, token_file_expiry(dict(os.environ)), "az login, or a fresh token file")


def expiry(whose: str, until: datetime | None, next_step: str, now: datetime | None = None) -> Iterable[Finding]:
    """What to say of credentials that end at `until` (None: not known, or never)."""
    if until is None:
        return
    left = until - (now or datetime.now(timezone.utc))
    minutes = int(left.total_seconds() // 60)
    if left <= TOO_SOON:
        yield Finding(
            "credentials",
            f"those of {whose} {'have expired' if minutes < 0 else f'expire in {minutes} minutes'}",
            "refused",
            why="the engine would lose them half way",
            next_step=next_step,
            error=CredentialsError,
        )
    elif left <= SOON:
        yield Finding("credentials", f"those of {whose} expire in {minutes} minutes", "warning", next_step=next_step)
    else:
        yield Finding("credentials", f"those of {whose} last until {until:%Y-%m-%d %H:%M} UTC")


def aws_expiry(credentials: Any) -> datetime | None:
    """When temporary credentials end: botocore knows it of those that it fetched, else the environment may say it."""
    known = getattr(credentials, "_expiry_time", None)
    if isinstance(known, datetime):
        return known.astimezone(timezone.utc)
    if getattr(credentials, "method", "") != "env":
        return None
    return _parsed(os.environ.get("AWS_CREDENTIAL_EXPIRATION", ""))


def token_file_expiry(environ: dict[str, str]) -> datetime | None:
    """When the federated token ends that Azure's login was made from; its claims are read, not believed."""
    path = environ.get("ARM_OIDC_TOKEN_FILE_PATH") or environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if not path or not environ.get("ARM_USE_OIDC"):
        return None
    try:
        payload = Path(path).read_text().strip().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), timezone.utc)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _parsed(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
