"""What can go wrong between kits and running machines.

    FedspanError (startup_kits.errors)
    ├── UsageError            2  a wrong combination of options or an unknown participant
    ├── CredentialsError      5  none, expired, or those of another account
    ├── RealmError            6  real and emulated clouds mixed, or an emulated cloud that is gone
    ├── CloudError            7  the engine or a cloud failed
    │   └── CapacityError     8  no capacity or quota
    ├── UnreachableError      9  no route, closed port, time-out, unknown name
    ├── HostKeyError         10  the machine shows another host key than the pinned one
    ├── NotRegisteredError   11  a site did not register with the server
    ├── RefusedError         13  needs `--yes`, another plan than the one shown, a job is running
    ├── SandboxError         14  the sandbox failed
    ├── BusyError            15  another command works on the same deployment
    ├── MissingToolError     16  no `pulumi`, or an extra that is not installed
    ├── MachineError         17  a command on a machine failed, or the machine lacks what the runtime needs
    ├── PreflightError       18  a check before anything is made says that it can't be made
    └── Interrupted         130  Ctrl-C

Exit codes 3 (SpecError) and 4 (KitError) are those of `startup_kits.errors`; 12 (a job failed) comes from the runtime.
"""

from __future__ import annotations

from startup_kits.errors import FedspanError, KitError, SpecError

__all__ = [
    "BusyError",
    "CapacityError",
    "CloudError",
    "CredentialsError",
    "FedspanError",
    "HostKeyError",
    "Interrupted",
    "JobError",
    "KitError",
    "MachineError",
    "MissingToolError",
    "NotRegisteredError",
    "PreflightError",
    "RealmError",
    "RefusedError",
    "SandboxError",
    "SpecError",
    "UnreachableError",
    "UsageError",
]


class UsageError(FedspanError):
    """A wrong command line, or a participant that the federation does not have."""

    exit_code = 2


class CredentialsError(FedspanError):
    """No credentials, expired ones, or those of another account than the spec names."""

    exit_code = 5


class RealmError(FedspanError):
    """Real and emulated clouds mixed in one workspace, or an emulated cloud that is gone."""

    exit_code = 6


class CloudError(FedspanError):
    """The engine or a cloud failed; participant, resource and log are named.

    Args:
        resource: the resource at which it failed, `type name`, where one is known.
        kind: what has to be done about it, a word of `deployer.cloud_errors.Kind`; empty where no cloud spoke.
    """

    exit_code = 7

    def __init__(
        self,
        what: str,
        *,
        participant: str | None = None,
        resource: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
        log: str | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(what, participant=participant, why=why, next_step=next_step, log=log)
        self.resource = resource
        self.kind = kind


class CapacityError(CloudError):
    """The cloud has no capacity for the wanted size, or the account no quota."""

    exit_code = 8


class UnreachableError(FedspanError):
    """A machine does not answer: no route, closed port, time-out, unknown name."""

    exit_code = 9


class HostKeyError(FedspanError):
    """A machine shows another SSH host key than the one made for it; never retried."""

    exit_code = 10


class NotRegisteredError(FedspanError):
    """A site was started and did not register with the server in time."""

    exit_code = 11


class JobError(FedspanError):
    """A job failed or was aborted."""

    exit_code = 12


class RefusedError(FedspanError):
    """Not done without a word: a question without an answer, another plan than shown, a running job."""

    exit_code = 13


class SandboxError(FedspanError):
    """The sandbox could not do what it was asked."""

    exit_code = 14


class BusyError(FedspanError):
    """Another command works on the same deployment."""

    exit_code = 15


class MissingToolError(FedspanError):
    """A command (`pulumi`) or an extra of the distribution is not installed."""

    exit_code = 16


class MachineError(FedspanError):
    """A machine was reached but can't run a participant: no Python 3.10, a full disk, a command that failed there."""

    exit_code = 17


class PreflightError(FedspanError):
    """A check before anything is made says that it can't be made; nothing was made.

    Where all that stands in the way is of one kind (credentials, quota), the exit code is that kind's own.
    """

    exit_code = 18


class Interrupted(FedspanError):
    """Ctrl-C: what was made so far is saved, `up` goes on and `down` removes it."""

    exit_code = 130
