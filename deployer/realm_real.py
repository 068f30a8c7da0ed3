"""The real clouds, with the operator's own identities and the real `pulumi` command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.credentials import aws_identity, azure_credential, azure_environment, azure_identity, check_account
from deployer.errors import MissingToolError
from deployer.my_address import ask_the_world

if TYPE_CHECKING:
    from deployer.realm import World
    from stacks.access import Access


def own_engine_root() -> Path:
    """Where `fedspan` installs a `pulumi` of its own, after asking."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "fedspan" / "pulumi"


def find_engine(environ: dict[str, str]) -> Path | None:
    """The folder above `bin/pulumi`: asked for by FEDSPAN_PULUMI_ROOT, on PATH, in ~/.pulumi, or our own."""
    if given := environ.get("FEDSPAN_PULUMI_ROOT"):
        return Path(given)
    candidates = [Path.home() / ".pulumi", own_engine_root()]
    on_path = shutil.which("pulumi", path=environ.get("PATH"))
    if on_path and Path(on_path).parent.name == "bin":
        candidates.insert(0, Path(on_path).parent.parent)
    return next((root for root in candidates if os.access(root / "bin" / "pulumi", os.X_OK)), None)


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
        """Where `pulumi` is; offers to install it when somebody is there to say yes.

        Raises:
            MissingToolError: there is none; the message gives the exact steps.
        """
        root = find_engine(self.environ)
        return root if root is not None else install_engine()

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
            import boto3

            return AwsWorld(boto3.session.Session(profile_name=access.profile), access.region)
        return AzureWorld(access.subscription_id, azure_credential(self.environ))

    def enter(self) -> None:
        """The stack programs run in this process: they must see what the engine sees."""
        os.environ.update(azure_environment(dict(os.environ)))


def install_engine() -> Path:
    """Install `pulumi` into a folder of our own, after asking.

    Raises:
        MissingToolError: nobody is there to ask, the answer was no, or the installation failed.
    """
    from deployer.cli import context

    steps = "curl -fsSL https://get.pulumi.com | sh, then try again (or set FEDSPAN_PULUMI_ROOT)"
    missing = MissingToolError(
        "the `pulumi` command is not installed",
        why="it is what makes resources in real clouds; looked on PATH, in ~/.pulumi and in " + str(own_engine_root()),
        next_step=steps,
    )
    if not context.interactive() or context.options().json or context.options().yes:
        raise missing
    question = f"pulumi is not installed. Download it from get.pulumi.com into {own_engine_root()}?"
    answer = context.ask(f"{question} [y/N] ")
    if answer.strip().lower() not in {"y", "yes"}:
        raise missing
    from pulumi.automation import PulumiCommand

    try:
        PulumiCommand.install(root=str(own_engine_root()))
    except Exception as error:
        raise MissingToolError("pulumi could not be installed", why=str(error), next_step=steps) from error
    return own_engine_root()
