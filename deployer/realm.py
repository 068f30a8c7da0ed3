"""The realm in which a command acts: the real clouds, or one life of one sandbox. Never both.

Everything that differs between the two hangs on this one object: the engine's command and environment, the plugins that
are attached to it, one's own address, the identities. All other code of the deployer is the same in both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Union

if TYPE_CHECKING:
    from deployer.cloud_clients import Clients
    from deployer.sandbox.client import Sandbox
    from deployer.settle import AwsWorld, AzureWorld
    from stacks.access import Access

World = Union["AwsWorld", "AzureWorld"]

# names of variables that carry an identity or an address of a real cloud; none of them enters a sandbox
CLOUD_PREFIXES = (
    "AWS_",
    "ARM_",
    "AZURE_",
    "AZ_",
    "MSI_",
    "IDENTITY_",
    "BOTO_",
    "PULUMI_",
    "GOOGLE_",
    "ACTIONS_ID_TOKEN",
)
CLOUD_NAMES = frozenset({"BOTO_CONFIG", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"})

# what an emulated engine is allowed to see of the operator's environment
HARMLESS = frozenset(
    {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TMPDIR", "TZ", "USER", "LOGNAME", "VIRTUAL_ENV", "PYTHONPATH"}
    | {"FEDSPAN_SANDBOX_HOME", "XDG_STATE_HOME", "COVERAGE_PROCESS_START"}
)


@dataclass(frozen=True)
class Management:
    """Where a machine in Azure finds Azure's management and the metadata service: URLs without a slash at their end.

    `ca`: what the management's certificate is from, as PEM, where that is no public authority.
    """

    arm: str
    metadata: str
    ca: bytes | None = None


class Realm(Protocol):
    """What the deployer asks of a realm. `where` is any participant with region, account, profile, subscription."""

    kind: str
    """`real` or `sandbox`."""
    ssh_port: int
    """The port on which machines made here listen for SSH."""

    @property
    def id(self) -> str:
        """Which one: `real`, or the sandbox's id, which is new for each of its lives."""
        ...

    def engine_root(self) -> Path:
        """The folder that holds `bin/pulumi`. Raises MissingToolError."""
        ...

    def engine_environment(self) -> dict[str, str]:
        """The whole environment of an engine command."""
        ...

    def plugins(self) -> AbstractContextManager[dict[str, str]]:
        """What one engine command needs in addition, for as long as it runs: attached plugins, or nothing."""
        ...

    def my_address(self) -> str:
        """The address from which the clouds see this machine. Raises UnreachableError; never a guess."""
        ...

    def access(self, cloud: str, where: Any) -> Access:
        """The identity with which a participant's stack is made. Raises CredentialsError."""
        ...

    def world(self, cloud: str, where: Any, access: Any) -> World:
        """A look into the cloud itself, past the engine: to find what a crash left, and to see that nothing is left."""
        ...

    def clients(self, cloud: str, where: Any, access: Any) -> Clients:
        """The cloud's own clients with that identity, for questions before anything is made."""
        ...

    def azure_management(self, member: Any, vm_id: str) -> Management:
        """Where a participant's machine, by its resource ID, asks Azure to deallocate it."""
        ...

    def enter(self) -> None:
        """Make this very process safe for the realm (the stack programs run in it)."""
        ...


def is_cloud_variable(name: str) -> bool:
    """Whether a variable of the environment could lead to a real cloud or to another engine set-up."""
    return name in CLOUD_NAMES or name.startswith(CLOUD_PREFIXES)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the operator's environment an emulated engine may see: an allow list, no credentials, no HOME."""
    return {name: value for name, value in environ.items() if name in HARMLESS}


def current() -> Realm:
    """The realm of the running command, by its options. A sandbox that does not run yet is started.

    Raises:
        SandboxError: the sandbox can't be started or reached.
    """
    from deployer.cli import context

    return of(sandbox=context.options().sandbox)


def of(*, sandbox: bool) -> Realm:
    """The realm: real clouds, or the sandbox of this user (started if need be)."""
    realm: Realm
    if sandbox:
        from deployer.realm_sandbox import SandboxRealm
        from deployer.sandbox.client import Sandbox

        realm = SandboxRealm(Sandbox.ensure())
    else:
        from deployer.realm_real import RealRealm

        realm = RealRealm(dict(os.environ))
    realm.enter()
    return realm


def found_sandbox() -> Sandbox | None:
    """The running sandbox, or None; starts nothing."""
    from deployer.sandbox.client import Sandbox

    return Sandbox.find()
