"""The clouds' own clients with a participant's identity, for questions past the engine; short time-outs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import boto3
    from azure.core.credentials import TokenCredential


class AwsClients:
    """One AWS identity in one region. `endpoints` (service name to URL) replaces AWS's own."""

    def __init__(self, session: boto3.session.Session, region: str, endpoints: Mapping[str, str] | None = None) -> None:
        self.session = session
        self.region = region
        self._endpoints = endpoints or {}
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        """A boto3 client; sessions make one at a time, clients may be used by several threads."""
        from botocore.config import Config

        with self._lock:
            if service not in self._made:
                config = Config(connect_timeout=5, read_timeout=15, retries={"max_attempts": 3, "mode": "standard"})
                self._made[service] = self.session.client(
                    service,  # type: ignore[call-overload]  # any service's name
                    region_name=self.region,
                    endpoint_url=self._endpoints.get(service) or self._endpoints.get("ec2"),
                    config=config,
                )
            return self._made[service]


class AzureClients:
    """One Azure identity in one subscription and location. `options` name another cloud than the public one."""

    def __init__(self, credential: TokenCredential, subscription_id: str, location: str, **options: Any) -> None:
        self.credential = credential
        self.subscription_id = subscription_id
        self.location = location
        self._options: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 30, "retry_total": 2, **options}
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def compute(self) -> Any:
        """Microsoft.Compute."""
        from azure.mgmt.compute import ComputeManagementClient

        return self._client("compute", ComputeManagementClient)

    @property
    def network(self) -> Any:
        """Microsoft.Network."""
        from azure.mgmt.network import NetworkManagementClient

        return self._client("network", NetworkManagementClient)

    def get(self, path: str, api_version: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """One GET below the subscription, for what no installed client has; the document and the headers.

        Raises:
            AzureError: ARM refuses, or does not answer.
        """
        from azure.core.rest import HttpRequest
        from azure.mgmt.resource.resources import ResourceManagementClient

        client = self._client("resource", ResourceManagementClient)
        url = f"/subscriptions/{self.subscription_id}{path}?api-version={api_version}"
        answer = client.send_request(HttpRequest("GET", url))
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document, answer.headers

    def _client(self, name: str, kind: Any) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = kind(self.credential, self.subscription_id, **self._options)
            return self._made[name]


Clients = AwsClients | AzureClients
