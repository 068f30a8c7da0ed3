"""The `azure-native` provider plugin: the sandbox's stand-in for pulumi-azure-native 3.29, over plain ARM REST."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from deployer.sandbox.azure.arm_client import ArmClient, ArmRefusal, Identity
from deployer.sandbox.azure.flat import from_rest
from deployer.sandbox.azure.native_resource import NativeResource, client_of
from deployer.sandbox.azure.native_types import TYPES, NativeType
from deployer.sandbox.provider_base import ProviderPlugin
from deployer.sandbox.provider_resource import Call, ProviderError, Resource, Values

VERSION = "3.29.0"


def _resource(definition: NativeType) -> Resource:
    made = type(definition.model, (NativeResource,), {"token": definition.token, "definition": definition})
    resource: Resource = made()
    return resource


class AzureNativeProvider(ProviderPlugin):
    """The plugin for one engine command. `environment` is that command's: credentials are read from it, as the real
    plugin reads them from its own. Nothing is ever sent anywhere but to `arm_url`."""

    package = "azure-native"
    version = VERSION

    def __init__(self, arm_url: str, ca_file: Path | str, environment: Mapping[str, str] | None = None) -> None:
        self._url, self._ca_file = arm_url.rstrip("/"), ca_file
        self._environment = dict(environment or {})
        functions = {
            "azure-native:authorization:getClientConfig": self._get_client_config,
            "azure-native:authorization:getClientToken": self._get_client_token,
        }
        for definition in TYPES:
            module, name = definition.token.rsplit(":", 1)
            functions[f"{module}:get{name}"] = _getter(definition)
        super().__init__([_resource(definition) for definition in TYPES], functions)

    def _setting(self, config: Values, name: str, *variables: str) -> str | None:
        """A setting of the provider's configuration, or of the environment."""
        given = config.get(name)
        if given not in (None, ""):
            return str(given)
        return next((self._environment[key] for key in variables if self._environment.get(key)), None)

    def configure(self, config: Values) -> ArmClient:
        host = self._setting(config, "metadataHost", "ARM_METADATA_HOSTNAME")
        own = self._url.removeprefix("https://")
        if host is not None and host.removeprefix("https://").rstrip("/") != own:
            raise ProviderError(
                f"the sandbox's azure-native provider talks to the emulated Azure at {own} only, and metadataHost (or"
                f" ARM_METADATA_HOSTNAME) is {host}"
            )
        subscription = self._setting(config, "subscriptionId", "ARM_SUBSCRIPTION_ID", "AZURE_SUBSCRIPTION_ID")
        if not subscription:
            raise ProviderError(
                "could not determine the subscription: set azure-native:subscriptionId, or ARM_SUBSCRIPTION_ID, or use"
                " 'az account set --subscription <id>'"
            )
        needed = {
            "tenantId": self._setting(config, "tenantId", "ARM_TENANT_ID", "AZURE_TENANT_ID"),
            "clientId": self._setting(config, "clientId", "ARM_CLIENT_ID", "AZURE_CLIENT_ID"),
            "clientSecret": self._setting(config, "clientSecret", "ARM_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise ProviderError(
                f"no credentials: {', '.join(missing)} not set. Set ARM_TENANT_ID, ARM_CLIENT_ID and ARM_CLIENT_SECRET"
                " (or the provider's arguments), or run 'az login'"
            )
        identity = Identity(subscription, *(str(value) for value in needed.values()))
        return ArmClient(self._url, self._ca_file, identity)

    def explain(self, error: Exception, call: Call, verb: str) -> str | None:
        if isinstance(error, requests.RequestException):
            return f"the emulated Azure at {self._url} does not answer: {type(error).__name__}"
        return None

    def _get_client_config(self, call: Call, args: Values) -> Values:
        one = client_of(call).identity
        client_of(call).token()
        return {
            "clientId": one.client_id,
            "objectId": one.client_id,
            "subscriptionId": one.subscription_id,
            "tenantId": one.tenant_id,
        }

    def _get_client_token(self, call: Call, args: Values) -> Values:
        return {"token": client_of(call).token()}


def _getter(definition: NativeType) -> Any:
    """The function `getX`: a resource by the names in its path. What is not there is an error."""

    def get(call: Call, args: Values) -> Values:
        client = client_of(call)
        if missing := [name for name in definition.path if not args.get(name)]:
            raise ProviderError(f"missing required argument '{missing[0]}'")
        path = definition.id(client.identity.subscription_id, args)
        found = client.get(path, definition.version, call.wait)
        if found is None:
            error = {"code": "ResourceNotFound", "message": f"The Resource '{path}' was not found."}
            raise ArmRefusal(404, error)
        flat: Values = from_rest(definition.space, definition.kind, found)
        return {**flat, "azureApiVersion": definition.version}

    return get
