"""With which identity, and where, a stack's provider talks to its cloud. Holds no secret: credentials stay in the
environment or in the profile's files, and never enter a stack's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AwsAccess:
    """An AWS identity. With `account_id` the provider refuses the credentials of every other account.

    `endpoints` (service to URL) replaces AWS's own; then nothing is asked of the machine's metadata service either.
    """

    region: str
    account_id: str | None = None
    profile: str | None = None
    endpoints: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class AzureAccess:
    """An Azure identity: the subscription is pinned, and the tenant when it is known.

    `metadata_host` (host or host:port) and `environment` name another cloud than the public one.
    """

    subscription_id: str
    location: str
    tenant_id: str | None = None
    metadata_host: str | None = None
    environment: str | None = None


Access = AwsAccess | AzureAccess
