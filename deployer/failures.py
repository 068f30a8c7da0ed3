"""From what an engine or a cloud said to an error that names the cause and the next command. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deployer.cloud_errors import Verdict, classify
from deployer.engine_events import Diagnostic, Step
from deployer.engine_home import GIVE_UP
from deployer.errors import BusyError, CapacityError, CloudError, CredentialsError, FedspanError, RefusedError
from deployer.plan import VM_TYPES

LOCKED = re.compile(r"currently locked by|Another update is currently in progress", re.IGNORECASE)
PASSPHRASE = re.compile(r"incorrect passphrase", re.IGNORECASE)
DAMAGED = re.compile(r"failed to load checkpoint", re.IGNORECASE)
PLAN = re.compile(r"violates plan", re.IGNORECASE)

# codes of `auth` that mean a missing right, not missing credentials
RIGHTS = frozenset(
    {
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationFailed",
        "LinkedAuthorizationFailed",
    }
)

MAX_CAUSE = 600


def cause_of(text: str) -> str:
    """The telling part of what a cloud said, on one line, at most 600 characters."""
    text = text.partition("Traceback (most recent call last)")[0] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    joined = " ".join(lines)
    return joined if len(joined) <= MAX_CAUSE else joined[: MAX_CAUSE - 1] + "…"


def from_diagnostics(
    participant: str,
    diagnostics: Sequence[Diagnostic],
    *,
    said: str = "",
    log: str | None = None,
    verb: str = "up",
    unlock: str = "",
) -> FedspanError:
    """The error for one failed engine command.

    Args:
        participant: whose stack it is.
        diagnostics: what the engine told of resources; the first with a resource is the cause.
        said: what the command itself wrote (locks, passphrases), where nothing was told of resources.
        log: the file with everything.
        verb: what to type again once the cause is mended.
        unlock: what to type where a lock's owner is dead.
    """
    first = next((entry for entry in diagnostics if entry.urn), None) or (diagnostics[0] if diagnostics else None)
    text = first.message if first else _error_line(said)
    everything = "\n".join([*(entry.message for entry in diagnostics), said])
    again = f"fedspan {verb} {participant}"
    resource = first.title if first and first.urn else None
    where = f"{resource} failed" if resource else "the engine failed"
    why = cause_of(text) or "it said nothing"

    if LOCKED.search(said):
        return BusyError(
            "the stack is locked by another command",
            participant=participant,
            why=cause_of(_error_line(said)),
            next_step=f"wait until it has ended, then {again}"
            + (f"; when it is certainly dead: {unlock}" if unlock else ""),
            log=log,
        )
    if PASSPHRASE.search(said):
        return CloudError(
            "the stack's secrets can't be read",
            participant=participant,
            why="incorrect passphrase: the file .fedspan/stacks/passphrase is not the one the stack was made with",
            next_step=f"put the backed-up passphrase file back. Without one: {GIVE_UP}, then fedspan up",
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
    verdict = classify(text)
    if verdict.kind == "bug":  # the cause is told of another resource, or by the command itself
        verdict = classify(everything)
    return from_cloud(participant, where, why, verdict, resource=resource, log=log, again=again)


def from_cloud(
    participant: str, where: str, why: str, verdict: Verdict, *, resource: str | None, log: str | None, again: str
) -> FedspanError:
    """The error for what a cloud said, with what to do about it.

    Args:
        where: what failed, `ec2.Instance site-1-vm failed`.
        why: the cloud's own words.
        verdict: what they mean.
        again: the command that goes on once the cause is mended.
    """

    def cloud(kind: type[CloudError], what: str, next_step: str) -> FedspanError:
        return kind(
            what, participant=participant, resource=resource, why=why, next_step=next_step, log=log, kind=verdict.kind
        )

    def refused(what: str, next_step: str) -> FedspanError:
        return CredentialsError(what, participant=participant, why=why, next_step=next_step, log=log)

    asked = f"ask for {verdict.ask}" if verdict.ask else ""
    if verdict.kind == "capacity":
        return cloud(
            CapacityError,
            f"{where}: the cloud has no capacity for it there",
            f"name further zones:, sizes: or fallback_regions: in federation.yml, or wait, then {again}",
        )
    if verdict.kind == "quota":
        return cloud(
            CapacityError,
            f"{where}: the account's quota is used up",
            f"{asked or 'ask the cloud for more quota'}, or name another size: or region:, then {again}",
        )
    if verdict.kind == "auth":
        if verdict.code in RIGHTS:
            return refused(
                f"{where}: these credentials may not do that",
                f"{asked or 'ask for the right'} (the account's owner gives it), then {again}",
            )
        return refused("the cloud refuses the credentials", f"log in again, then {again}")
    if verdict.kind == "policy":
        command = verdict.ask if verdict.ask.startswith("az ") else asked
        return cloud(
            CloudError,
            f"{where}: a rule of the account forbids it",
            f"{command or 'ask whoever looks after the account'}, then {again}",
        )
    if verdict.kind == "throttling":
        return cloud(CloudError, f"{where}: the cloud takes no more requests for now", f"wait a minute, then {again}")
    if verdict.kind == "network":
        return cloud(
            CloudError,
            f"{where}: the cloud was not reached, or did not answer to the end",
            f"look at this machine's network, then {again} (what was made meanwhile is found)",
        )
    if verdict.kind == "outage":
        return cloud(CloudError, f"{where}: the cloud failed by its own account", f"wait, then {again}")
    return cloud(CloudError, where, again)


def too_slow(participant: str, step: Step, seconds: float, *, log: str | None) -> CloudError:
    """The error for a step that the watchdog ended: for a machine it counts as no room."""
    machine = step.type in VM_TYPES
    kind = CapacityError if machine else CloudError
    return kind(
        f"{step.title} was given up",
        participant=participant,
        resource=step.title,
        why=f"the cloud has not made it within {seconds:.0f} s; its provider would have gone on trying",
        next_step=f"name further zones: or sizes: in federation.yml, or wait, then fedspan up {participant}"
        if machine
        else f"wait, then fedspan up {participant}",
        log=log,
        kind="capacity" if machine else "outage",
    )


def _error_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    at = next((index for index, line in enumerate(lines) if line.startswith(("error:", "stderr: error:"))), None)
    if at is None:
        told = [line for line in lines if line and not line.startswith(("code:", "stdout:"))]
        return told[-1].removeprefix("stderr: ") if told else ""
    return " ".join(lines[at:]).replace("stderr: ", "").removeprefix("error:").strip()
