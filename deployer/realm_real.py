"""The real clouds, with the operator's own identities and the real `pulumi` command."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.credentials import aws_identity, azure_credential, azure_environment, azure_identity, check_account
from deployer.engine_find import command_in, find_engine, own_engine_root
from deployer.my_address import ask_the_world
from deployer.realm import Management

if TYPE_CHECKING:
    from deployer.cloud_clients import AwsClients, AzureClients, Clients
    from deployer.realm import World
    from stacks.access import Access


class RealRealm:
    """AWS and Azure. See `deployer.realm.Realm`."""

    kind = "real"
    id = "real"
    ssh_port = 22

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self._address: str | None = None
        self._accounts: dict[tuple[str, str | None], str] = {}
        self._subscriptions: dict[str | None, tuple[str, str | None]] = {}

    def engine_root(self) -> Path:
        """Where `pulumi` is; offers to install the pinned one, with `--yes` without asking.

        Raises:
            MissingToolError: there is none; the message gives the exact steps.
        """
        root = find_engine(self.environ)
        return root if root is not None else offer_engine()

    def engine_environment(self) -> dict[str, str]:
        """The operator's environment, with both of Azure's families of names saying the same."""
        environment = azure_environment(self.environ)
        environment["PULUMI_SKIP_UPDATE_CHECK"] = "true"
        # an emulated provider must never be asked about a real cloud; the stacks have a passphrase file of their own
        for name in ("PULUMI_DEBUG_PROVIDERS", "PULUMI_CONFIG_PASSPHRASE"):
            environment.pop(name, None)
        return environment

    @contextmanager
    def plugins(self) -> Iterator[dict[str, str]]:
        """Nothing: the engine loads the real plugins itself."""
        yield {}

    def my_address(self) -> str:
        """Asked of a few services over HTTPS that must agree; asked once."""
        if self._address is None:
            self._address = ask_the_world()
        return self._address

    def access(self, cloud: str, where: Any) -> Access:
        """The identity that the spec names, checked with the cloud before anything is made."""
        from stacks.access import AwsAccess, AzureAccess

        if cloud == "aws":
            account = self._accounts.get((where.profile, None)) or aws_identity(where.name, where.profile, where.region)
            self._accounts[(where.profile, None)] = account
            check_account(where.name, "account", where.account, account, profile=where.profile)
            return AwsAccess(region=where.region, account_id=account, profile=where.profile)
        if where.subscription not in self._subscriptions:
            self._subscriptions[where.subscription] = azure_identity(where.name, where.subscription, self.environ)
        subscription, tenant = self._subscriptions[where.subscription]
        return AzureAccess(subscription_id=subscription, location=where.region, tenant_id=where.tenant or tenant)

    def world(self, cloud: str, where: Any, access: Any) -> World:
        """The clouds' own clients, with the same identities as the engine's."""
        from deployer.settle import AwsWorld, AzureWorld

        if cloud == "aws":
            return AwsWorld(self._aws(access, patient=True))
        return AzureWorld(self._azure(access, patient=True))

    def clients(self, cloud: str, where: Any, access: Any) -> Clients:
        """Clients with the same identities as the engine's."""
        return self._aws(access) if cloud == "aws" else self._azure(access)

    def _aws(self, access: Any, *, patient: bool = False) -> AwsClients:
        import boto3

        from deployer.cloud_clients import AwsClients

        return AwsClients(boto3.session.Session(profile_name=access.profile), access.region, patient=patient)

    def _azure(self, access: Any, *, patient: bool = False) -> AzureClients:
        from deployer.cloud_clients import AzureClients

        credential = azure_credential(self.environ)
        return AzureClients(credential, access.subscription_id, access.location, patient=patient)

    def azure_management(self, member: Any, vm_id: str) -> Management:
        """The public cloud's own."""
        return Management("https://management.azure.com", "http://169.254.169.254")

    def enter(self) -> None:
        """The stack programs run in this process: they must see what the engine sees."""
        os.environ.update(azure_environment(dict(os.environ)))


_installing = threading.Lock()


def offer_engine() -> Path:
    """Install `pulumi` into a folder of our own after asking (`--yes` answers); participants' threads ask once.

    Raises:
        MissingToolError: nobody is there to ask, the answer was no, or the installation failed.
    """
    from deployer.cli import context
    from deployer.engine_install import install, missing, sources

    options = context.options()
    with _installing:
        if os.access(command_in(own_engine_root()), os.X_OK):
            return own_engine_root()
        if not options.yes:
            if options.json or not context.interactive():
                raise missing()
            answer = context.ask(f"pulumi is not installed. Fetch {sources()[0]} for fedspan alone? [y/N] ")
            if answer.strip().lower() not in {"y", "yes"}:
                raise missing("the answer was no")
        return install(say=(lambda text: None) if options.json else context.say)
