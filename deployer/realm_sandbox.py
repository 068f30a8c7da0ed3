"""The emulated realm: stand-in engine, attached plugins, dummy credentials; nothing that the operator has.

A package that is not attached would make the engine load its real plugin with real credentials, so an engine command
does not start unless both packages are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.engine_find import ROOT_VARIABLE, root_of
from deployer.errors import SandboxError
from deployer.realm import Management, is_cloud_variable, scrubbed

if TYPE_CHECKING:
    import boto3

    from deployer.cloud_clients import AwsClients, AzureClients, Clients
    from deployer.realm import World
    from deployer.sandbox.client import Sandbox
    from stacks.access import Access

PACKAGES = ("aws", "azure-native")


def check_attached(value: str) -> str:
    """Make sure that a PULUMI_DEBUG_PROVIDERS value attaches every package. Raises SandboxError."""
    attached = {entry.partition(":")[0] for entry in value.split(",") if entry.partition(":")[2].isdigit()}
    missing = [package for package in PACKAGES if package not in attached]
    if missing:
        raise SandboxError(
            f"the emulated provider of {', '.join(missing)} is not attached",
            why="the engine would load the real plugin with real credentials, so it is not started",
            next_step="fedspan sandbox status",
        )
    return value


class SandboxRealm:
    """One life of a sandbox. See `deployer.realm.Realm`."""

    kind = "sandbox"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.ssh_port: int = sandbox.ssh_port

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return str(self.sandbox.realm_id)

    def engine_root(self) -> Path:
        """The stand-in's folder; FEDSPAN_PULUMI_ROOT asks for another command against the same emulated clouds."""
        given = os.environ.get(ROOT_VARIABLE)
        return root_of(Path(given)) if given else Path(self.sandbox.engine_root)

    def engine_environment(self) -> dict[str, str]:
        """An allow list of the operator's variables, the emulated clouds' own, and a HOME with nothing in it."""
        home = self.sandbox.home / "empty-home"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = scrubbed(os.environ)
        environment.update(self.sandbox.azure_environment())
        environment.update(self.sandbox.aws_environment(None))
        environment.update(
            HOME=str(home), PULUMI_SKIP_UPDATE_CHECK="true", PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true"
        )
        environment.setdefault("PATH", os.defpath)
        return environment

    @contextmanager
    def plugins(self) -> Iterator[dict[str, str]]:
        """Fresh plugin servers for one engine command (requests carry no provider reference, so none is shared)."""
        with self.sandbox.plugins() as value:
            yield {"PULUMI_DEBUG_PROVIDERS": check_attached(value)}

    def my_address(self) -> str:
        """The workstation's emulated address."""
        return str(self.sandbox.my_address())

    def access(self, cloud: str, where: Any) -> Access:
        """The identity by account or profile, against the emulated endpoints; refused if it is another account's."""
        from deployer.credentials import check_account
        from stacks.access import AwsAccess, AzureAccess

        if cloud == "aws":
            if where.profile and where.account:
                self.sandbox.register_profile(where.profile, where.account)
            environment = self.sandbox.aws_environment(where.profile)
            endpoints = self.sandbox.aws_endpoints()
            account = aws_account(environment, where.region, endpoints.get("sts"))
            check_account(where.name, "account", where.account, account, profile=where.profile)
            return AwsAccess(region=where.region, account_id=account, profile=where.profile, endpoints=endpoints)
        environment = self.sandbox.azure_environment(where.subscription)
        subscription = environment["ARM_SUBSCRIPTION_ID"]
        check_account(where.name, "subscription", where.subscription, subscription)
        return AzureAccess(
            subscription_id=subscription,
            location=where.region,
            tenant_id=environment.get("ARM_TENANT_ID"),
            metadata_host=environment.get("ARM_METADATA_HOSTNAME"),
        )

    def world(self, cloud: str, where: Any, access: Any) -> World:
        """Clients of the emulated clouds."""
        from deployer.settle import AwsWorld, AzureWorld

        if cloud == "aws":
            return AwsWorld(self._aws(access, patient=True))
        return AzureWorld(self._azure(access, patient=True))

    def clients(self, cloud: str, where: Any, access: Any) -> Clients:
        """Clients of the emulated clouds, with the same identities as the engine's."""
        return self._aws(access) if cloud == "aws" else self._azure(access)

    def _aws(self, access: Any, *, patient: bool = False) -> AwsClients:
        from deployer.cloud_clients import AwsClients

        session = aws_session(self.sandbox.aws_environment(access.profile), access.region)
        return AwsClients(session, access.region, self.sandbox.aws_endpoints(), patient=patient)

    def _azure(self, access: Any, *, patient: bool = False) -> AzureClients:
        from azure.identity import ClientSecretCredential

        from deployer.cloud_clients import AzureClients

        environment = self.sandbox.azure_environment(access.subscription_id)
        endpoint = environment["ARM_ENDPOINT"]
        credential = ClientSecretCredential(
            environment["ARM_TENANT_ID"],
            environment["ARM_CLIENT_ID"],
            environment["ARM_CLIENT_SECRET"],
            authority=environment["AZURE_AUTHORITY_HOST"],
            disable_instance_discovery=True,
        )
        return AzureClients(
            credential,
            access.subscription_id,
            access.location,
            patient=patient,
            base_url=endpoint,
            credential_scopes=[f"{endpoint}/.default"],
        )

    def azure_management(self, member: Any, vm_id: str) -> Management:
        """The emulated Azure's: on this computer's loopback for machines that are processes, else at their edge."""
        return Management(*self.sandbox.azure_management(vm_id))

    def enter(self) -> None:
        """Take every credential out of this process: the stack programs run here and read the environment."""
        for name in [name for name in os.environ if is_cloud_variable(name)]:
            del os.environ[name]
        # the emulated ARM has a certificate of the sandbox's own CA
        bundle = self.sandbox.azure_environment().get("REQUESTS_CA_BUNDLE")
        if bundle:
            os.environ["REQUESTS_CA_BUNDLE"] = bundle


def aws_account(environment: dict[str, str], region: str, endpoint: str | None) -> str:
    """The account that these credentials belong to, asked of (emulated) STS."""
    client = aws_session(environment, region).client("sts", endpoint_url=endpoint)
    account: str = client.get_caller_identity()["Account"]
    return account


def aws_session(environment: dict[str, str], region: str) -> boto3.session.Session:
    """A session with exactly these credentials, whatever the operator's own configuration says."""
    import boto3

    return boto3.session.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=region,
    )
