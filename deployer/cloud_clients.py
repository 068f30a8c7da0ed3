"""The clouds' own clients with a participant's identity, for what is asked and done past the engine.

Questions before anything is made get little time, as they stop nothing; with `patient` a client waits as long as
changes and the search for what is left need.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import boto3
    from azure.core.credentials import TokenCredential

_AWS_QUICK = {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 3, "mode": "standard"}}
_AWS_PATIENT = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 5, "mode": "standard"}}
_AZURE_QUICK = {"connection_timeout": 5, "read_timeout": 30, "retry_total": 2}
_AZURE_PATIENT = {"polling_interval": 5}


class AwsClients:
    """One AWS identity in one region. `endpoints` (service name to URL) replaces AWS's own."""

    def __init__(
        self,
        session: boto3.session.Session,
        region: str,
        endpoints: Mapping[str, str] | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self.session = session
        self.region = region
        self._endpoints = endpoints or {}
        self._options: dict[str, Any] = _AWS_PATIENT if patient else _AWS_QUICK
        self._made: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client, for another region too; sessions make one at a time, clients serve several threads."""
        from botocore.config import Config

        with self._lock:
            key = (service, region or self.region)
            if key not in self._made:
                self._made[key] = self.session.client(
                    service,  # type: ignore[call-overload]  # any service's name
                    region_name=key[1],
                    endpoint_url=self._endpoints.get(service) or self._endpoints.get("ec2"),
                    config=Config(**self._options),
                )
            return self._made[key]


class AzureClients:
    """One Azure identity in one subscription and location. `options` name another cloud than the public one."""

    def __init__(
        self,
        credential: TokenCredential,
        subscription_id: str,
        location: str,
        *,
        patient: bool = False,
        **options: Any,
    ) -> None:
        self.credential = credential
        self.subscription_id = subscription_id
        self.location = location
        self._options: dict[str, Any] = {**(_AZURE_PATIENT if patient else _AZURE_QUICK), **options}
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

    @property
    def resources(self) -> Any:
        """Microsoft.Resources: groups, and resources of any kind by their ID."""
        from azure.mgmt.resource.resources import ResourceManagementClient

        return self._client("resource", ResourceManagementClient)

    def get(self, path: str, api_version: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """One GET below the subscription, for what no installed client has; the document and the headers.

        Raises:
            AzureError: ARM refuses, or does not answer.
        """
        from azure.core.rest import HttpRequest

        url = f"/subscriptions/{self.subscription_id}{path}?api-version={api_version}"
        answer = self.resources.send_request(HttpRequest("GET", url))
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document, answer.headers

    def _client(self, name: str, kind: Any) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = kind(self.credential, self.subscription_id, **self._options)
            return self._made[name]


Clients = AwsClients | AzureClients


def offered_zones(ec2: Any, sizes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The zones in which EC2 offers each of these sizes (small letters), sorted; one that is missing is not offered.

    Raises:
        BotoCoreError, ClientError: EC2 refuses, or does not answer.
    """
    filters = [{"Name": "instance-type", "Values": sorted(sizes)}]
    pages = ec2.get_paginator("describe_instance_type_offerings")
    zones: dict[str, list[str]] = {}
    for page in pages.paginate(LocationType="availability-zone", Filters=filters):
        for offer in page["InstanceTypeOfferings"]:
            zones.setdefault(offer["InstanceType"].lower(), []).append(offer["Location"])
    return {size: tuple(sorted(names)) for size, names in zones.items()}
