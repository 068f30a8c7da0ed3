"""From what an engine or a cloud said to an error that names the cause and the next command. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deployer.engine_events import Diagnostic
from deployer.errors import BusyError, CapacityError, CloudError, CredentialsError, FedspanError, RefusedError

# what the clouds say when they have no room, or the account no quota
CAPACITY = re.compile(
    r"InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientAddressCapacity|MaxSpotInstanceCountExceeded"
    r"|SpotMaxPriceTooLow|SkuNotAvailable|(Zonal|Overconstrained)?(Zonal)?AllocationFailed|OverconstrainedAllocationRequest",
    re.IGNORECASE,
)
QUOTA = re.compile(
    r"VcpuLimitExceeded|InstanceLimitExceeded|AddressLimitExceeded|VpcLimitExceeded|[A-Za-z]+LimitExceeded"
    r"|QuotaExceeded|exceeding approved .*quota|CoresQuota",
    re.IGNORECASE,
)
CREDENTIALS = re.compile(
    r"ExpiredToken|InvalidClientTokenId|AuthFailure|SignatureDoesNotMatch|UnrecognizedClient|NoCredentialProviders"
    r"|no valid credential|InvalidAuthenticationToken|ExpiredAuthenticationToken|AADSTS\d+|az login"
    r"|failed to refresh cached credentials",
    re.IGNORECASE,
)
PERMISSION = re.compile(
    r"UnauthorizedOperation|AuthorizationFailed|AccessDenied|LinkedAuthorizationFailed", re.IGNORECASE
)
ACCOUNT = re.compile(r"AWS account ID not allowed|account ID .* not allowed|not in the list of allowed", re.IGNORECASE)
LOCKED = re.compile(r"currently locked by|Another update is currently in progress", re.IGNORECASE)
PASSPHRASE = re.compile(r"incorrect passphrase", re.IGNORECASE)
DAMAGED = re.compile(r"failed to load checkpoint", re.IGNORECASE)
PLAN = re.compile(r"violates plan", re.IGNORECASE)

MAX_CAUSE = 600


def cause_of(text: str) -> str:
    """The telling part of what a cloud said, on one line, at most 600 characters."""
    text = text.partition("Traceback (most recent call last)")[0] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    joined = " ".join(lines)
    return joined if len(joined) <= MAX_CAUSE else joined[: MAX_CAUSE - 1] + "…"


def from_diagnostics(
    participant: str, diagnostics: Sequence[Diagnostic], *, said: str = "", log: str | None = None, verb: str = "up"
) -> FedspanError:
    """The error for one failed engine command.

    Args:
        participant: whose stack it is.
        diagnostics: what the engine told of resources; the first with a resource is the cause.
        said: what the command itself wrote (locks, passphrases), where nothing was told of resources.
        log: the file with everything.
        verb: what to type again once the cause is mended.
    """
    first = next((entry for entry in diagnostics if entry.urn), None) or (diagnostics[0] if diagnostics else None)
    text = first.message if first else _error_line(said)
    everything = "\n".join([*(entry.message for entry in diagnostics), said])
    again = f"fedspan {verb} {participant}"
    resource = first.title if first and first.urn else None
    where = f"{resource} failed" if resource else "the engine failed"
    why = cause_of(text) or "it said nothing"

    def cloud(kind: type[CloudError], what: str, next_step: str) -> FedspanError:
        return kind(what, participant=participant, resource=resource, why=why, next_step=next_step, log=log)

    if QUOTA.search(everything):
        return cloud(
            CapacityError,
            f"{where}: the account's quota is used up",
            f"ask the cloud for more quota, or set another size: or region: in federation.yml, then {again}",
        )
    if CAPACITY.search(everything):
        return cloud(
            CapacityError,
            f"{where}: the cloud has no capacity for it there",
            f"set another zone:, size: or region: in federation.yml, or wait, then {again}",
        )
    if ACCOUNT.search(everything) or CREDENTIALS.search(everything):
        return CredentialsError(
            "the cloud refuses the credentials",
            participant=participant,
            why=why,
            next_step=f"log in again, then {again}",
            log=log,
        )
    if PERMISSION.search(everything):
        return CredentialsError(
            f"{where}: these credentials may not do that",
            participant=participant,
            why=why,
            next_step=f"ask the account's owner for the right, then {again}",
            log=log,
        )
    if LOCKED.search(said):
        return BusyError(
            "the stack is locked by another command",
            participant=participant,
            why=cause_of(_error_line(said)),
            next_step=f"wait until it has ended, then {again}",
            log=log,
        )
    if PASSPHRASE.search(said):
        return CloudError(
            "the stack's secrets can't be read",
            participant=participant,
            why="incorrect passphrase: the file .fedspan/stacks/passphrase is not the one the stack was made with",
            next_step="put the backed-up passphrase file back",
            log=log,
        )
    if DAMAGED.search(said):
        return CloudError(
            "the stack's checkpoint is damaged",
            participant=participant,
            why=cause_of(_error_line(said)),
            next_step="put the checkpoint's .bak beside it in its place, then " + again,
            log=log,
        )
    if PLAN.search(everything):
        return RefusedError(
            "the engine wants something else than the plan that was shown",
            participant=participant,
            why=why,
            next_step="fedspan plan shows what has changed",
            log=log,
        )
    return cloud(CloudError, where, again)


def _error_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    at = next((index for index, line in enumerate(lines) if line.startswith(("error:", "stderr: error:"))), None)
    if at is None:
        told = [line for line in lines if line and not line.startswith(("code:", "stdout:"))]
        return told[-1].removeprefix("stderr: ") if told else ""
    return " ".join(lines[at:]).replace("stderr: ", "").removeprefix("error:").strip()
