"""The sandbox's `aws` provider plugin: Pulumi's provider protocol over boto3 against the emulated AWS.

Every client gets the sandbox's endpoint and dummy credentials explicitly; no configuration file, environment variable,
metadata service or proxy of this machine has a say, so that nothing can reach a real AWS.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deployer.sandbox.aws.accounts import DEFAULT_ACCOUNT, PROFILES, Credentials, account_of, credentials
from deployer.sandbox.aws.functions import FUNCTIONS
from deployer.sandbox.aws.resource import AwsResource, AwsState, error_text
from deployer.sandbox.aws.resources_addresses import Eip, EipAssociation, NetworkInterface
from deployer.sandbox.aws.resources_groups import SecurityGroup, SecurityGroupEgressRule, SecurityGroupIngressRule
from deployer.sandbox.aws.resources_instance import Instance
from deployer.sandbox.aws.resources_network import InternetGateway, Subnet, Vpc
from deployer.sandbox.aws.resources_routes import Route, RouteTable, RouteTableAssociation
from deployer.sandbox.aws.resources_volumes import KeyPair, Volume, VolumeAttachment
from deployer.sandbox.provider_base import Call, ProviderError, ProviderPlugin, Resource, Values

VERSION = "7.51.1"  # the pulumi-aws whose properties are served
DOING = {"create": "creating", "update": "updating", "delete": "deleting", "read": "reading", "diff": "planning"}

# Settings that would change what is done; a provider that ignored them would lie.
NOT_EMULATED = ("assumeRoles", "assumeRoleWithWebIdentity", "ignoreTags", "tagPolicyCompliance")

RESOURCES: tuple[type[AwsResource], ...] = (
    Vpc,
    Subnet,
    InternetGateway,
    RouteTable,
    Route,
    RouteTableAssociation,
    SecurityGroup,
    SecurityGroupIngressRule,
    SecurityGroupEgressRule,
    NetworkInterface,
    Eip,
    EipAssociation,
    KeyPair,
    Instance,
    Volume,
    VolumeAttachment,
)


class Clients:
    """boto3 clients for one endpoint, made once for each account, service and region; they are thread-safe."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, str], Any] = {}
        nothing = os.devnull
        self._core = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, nothing, None),
                "credentials_file": (None, None, nothing, None),
            }
        )

    def get(self, who: Credentials, service: str, region: str) -> Any:
        key = (who.account, service, region)
        with self._lock:
            if key not in self._made:
                session = boto3.Session(botocore_session=self._core)
                self._made[key] = session.client(  # type: ignore[call-overload]  # the service's name is a variable
                    service,
                    region_name=region,
                    endpoint_url=self.endpoint,
                    aws_access_key_id=who.access_key,
                    aws_secret_access_key=who.secret_key,
                    config=Config(
                        retries={"total_max_attempts": 1},  # loopback: what fails once fails again
                        proxies={},
                        connect_timeout=5,
                        read_timeout=60,
                        max_pool_connections=32,
                    ),
                )
            return self._made[key]


_clients: dict[str, Clients] = {}
_clients_lock = threading.Lock()


def clients(endpoint: str) -> Clients:
    """The process's clients for an endpoint: plugins come and go with each engine command, clients stay."""
    with _clients_lock:
        return _clients.setdefault(endpoint, Clients(endpoint))


class AwsProvider(ProviderPlugin):
    """The plugin for one engine command. `environment` is the command's: its AWS_* say whose credentials it has."""

    package, version = "aws", VERSION

    def __init__(self, endpoint: str, environment: Mapping[str, str] | None = None) -> None:
        resources: list[Resource] = [resource() for resource in RESOURCES]
        super().__init__(resources, FUNCTIONS)
        self.endpoint = endpoint
        self.environment = dict(environment or {})

    # -- configuration -----------------------------------------------------------------------------------------
    def check_config(self, config: Values) -> list[tuple[str, str]]:
        failures = [
            (name, f"the sandbox's aws plugin does not emulate the provider's {name}")
            for name in NOT_EMULATED
            if config.get(name)
        ]
        for services in config.get("endpoints") or []:
            for service, url in services.items():
                if url and not _is_loopback(str(url)):
                    failures.append(
                        ("endpoints", f"the sandbox's aws plugin only talks to the sandbox, not to {service} at {url}")
                    )
        return failures

    def configure(self, config: Values) -> AwsState:
        region = (
            config.get("region") or self.environment.get("AWS_REGION") or self.environment.get("AWS_DEFAULT_REGION")
        )
        if not region:
            raise ProviderError(
                "Missing region configuration: give the provider a `region`, or set AWS_REGION in the environment"
            )
        for _, reason in self.check_config(config):
            raise ProviderError(reason)
        who = self._credentials(config)
        pool = clients(self.endpoint)
        account = str(pool.get(who, "sts", region).get_caller_identity()["Account"])
        allowed, forbidden = config.get("allowedAccountIds") or [], config.get("forbiddenAccountIds") or []
        if (allowed and account not in allowed) or account in forbidden:
            raise ProviderError(f"AWS account ID not allowed: {account}")
        defaults = (config.get("defaultTags") or {}).get("tags") or {}
        return AwsState(
            region=region,
            account=account,
            default_tags={key: str(value) for key, value in defaults.items()},
            client=lambda service, where: pool.get(who, service, where),
        )

    def _credentials(self, config: Values) -> Credentials:
        """Explicit keys, then the profile, then the command's environment, then the sandbox's default account."""
        key = config.get("accessKey")
        if not key and not config.get("profile"):
            key = self.environment.get("AWS_ACCESS_KEY_ID")
        if key:
            account = account_of(key)
            if account is None:
                raise ProviderError(
                    "InvalidClientTokenId: The security token included in the request is invalid: these are none of the"
                    " sandbox's credentials, and the sandbox uses no others"
                )
            return credentials(account)
        profile = config.get("profile") or self.environment.get("AWS_PROFILE")
        if not profile:
            return credentials(DEFAULT_ACCOUNT)
        if profile not in PROFILES:
            raise ProviderError(
                f"failed to get shared config profile, {profile}: the sandbox has the profiles {', '.join(PROFILES)}"
            )
        return credentials(PROFILES[profile])

    def diff_config(self, old: Values, new: Values) -> frozenset[str]:
        # Another account is another world: nothing of the old one can be found with the new credentials. The real
        # provider updates in place and then fails on every resource; so does this one (nothing forces a replacement).
        return frozenset()

    # -- errors ------------------------------------------------------------------------------------------------
    def explain(self, error: Exception, call: Call, verb: str) -> str | None:
        if not isinstance(error, (ClientError, BotoCoreError)):
            return None
        resource = self.resources.get(call.type)
        label = resource.label if isinstance(resource, AwsResource) else call.type
        doing = f"{DOING.get(verb, verb)} {label}" + (f" ({call.name})" if call.name else "")
        return error_text(doing, error) if isinstance(error, ClientError) else f"{doing}: {error}"


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
