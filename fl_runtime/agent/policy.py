"""May this job run here? The site decides: envelope, submitter, data. A refusal says why."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from fl_runtime.agent.isolation import Isolation, harmless
from fl_runtime.errors import FlError, RefusedError
from fl_runtime.filters.registry import custom_modules
from fl_runtime.job.envelope import Envelope, open_envelope
from fl_runtime.job.spec import JobSpec
from fl_runtime.kit import Kit, machine_path
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.revocations import RevocationBook


def check_envelope(
    kit: Kit,
    start: pb.JobStart,
    known: bytes | None,
    ended: bool,
    revocations: RevocationBook | None = None,
    *,
    goes_on: bool = False,
) -> Envelope:
    """The signature, the signer, and that this job id was not used for something else.

    A job may take longer than its envelope and its signer's certificate are valid: they say how long it may be
    begun. What the site's owner or the CA has decided meanwhile counts at any time.

    Args:
        known: the envelope under which this site has seen the job id before.
        revocations: the newest list of revoked certificates that is here.
        goes_on: the site has accepted that envelope before.

    Raises:
        RefusedError: with the reason.
    """
    sealed = start.envelope
    goes_on = goes_on and known == sealed.document
    envelope = open_envelope(kit, sealed.document, sealed.signature, sealed.certificate, at_any_time=goes_on)
    if envelope.job != start.job or envelope.bundle != start.bundle.blob:
        raise RefusedError(
            "The job is refused", participant=kit.name, why="its bundle or id is not the one that its submitter signed"
        )
    if envelope.sites is not None and kit.name not in envelope.sites:
        raise RefusedError("The job is refused", participant=kit.name, why="it is not meant for this site")
    if known is not None and (known != sealed.document or ended):
        raise RefusedError("The job is refused", participant=kit.name, why="its id was used here before")
    signer, rules = envelope.signer, kit.policy()
    if revocations is not None and revocations.is_revoked(signer.serial):
        raise RefusedError(
            "The job is refused", participant=kit.name, why=f"the certificate of its signer {signer.name} is revoked"
        )
    current = revocations.current if revocations is not None else None
    if rules.revocations == "required" and (current is None or not current.fresh()):
        state = f"number {current.number} is past its time" if current is not None else "there is none"
        raise RefusedError(
            "The job is refused",
            participant=kit.name,
            why=f"local/policy.yml wants a fresh list of revoked certificates, and {state}",
            next_step="the federation's lead: fedspan revoke --renew",
        )
    allowed = rules.submitters
    if not {signer.name, signer.admin_role, "any"} & set(allowed):
        raise RefusedError(
            "The job is refused",
            participant=kit.name,
            why=f"{signer.name} ({signer.admin_role or 'admin'}) may not submit here; local/policy.yml allows: "
            + (", ".join(allowed) or "nobody"),
        )
    return envelope


def check_job(kit: Kit, spec: JobSpec) -> dict[str, str]:
    """What the job asks for against what the site has; the paths of its data.

    Raises:
        RefusedError: with the reason.
    """
    declared = kit.declared()
    paths: dict[str, str] = {}
    for name in spec.data:
        if name not in declared:
            has = ", ".join(sorted(declared)) or "none"
            raise RefusedError(
                "The job is refused",
                participant=kit.name,
                why=f"it asks for the data {name!r}, which this site does not declare (it declares: {has})",
                next_step=f"local/data.yml of {kit.name}",
            )
        place = machine_path(declared[name])
        if not place.exists():
            raise RefusedError(
                "The job is refused",
                participant=kit.name,
                why=f"the data {name!r} is declared at {declared[name]}, but nothing lies there",
                next_step=f"fedspan cp FILE {kit.name}:{declared[name]}",
            )
        paths[name] = os.path.realpath(place)
    rules = kit.policy()
    scripts, filters = rules.scripts, rules.job_filters
    if "any" not in scripts and spec.entry and spec.entry not in scripts:
        raise RefusedError(
            "The job is refused",
            participant=kit.name,
            why=f"its script {spec.entry} is not on this site's list ({', '.join(scripts) or 'empty'})",
        )
    for file in custom_modules(spec.filters):
        if file not in filters:  # not `scripts`: those are kept apart, this runs as the agent
            raise RefusedError(
                "The job is refused",
                participant=kit.name,
                why=f"its filter {file} is not on this site's list job_filters ({', '.join(filters) or 'empty'}); "
                "a job's own filter runs as the agent and must be named there",
                next_step=f"local/policy.yml of {kit.name}: job_filters: [{', '.join([*filters, file])}]",
            )
    return paths


def data_paths(kit: Kit) -> dict[str, str]:
    """Where the declared data lies on this machine."""
    return {name: os.path.realpath(path) for name, path in kit.data().items()}


def check_readable(kit: Kit, state: Path, isolation: Isolation, data: Mapping[str, str]) -> None:
    """Data must not be the kit's own folder, and the jobs' user must be able to read it.

    Raises:
        RefusedError: names the data and what to do.
    """
    for name, path in data.items():
        if not harmless(path, kit, state):
            raise RefusedError(
                "The job is refused",
                participant=kit.name,
                why=f"the data {name!r} lies in a folder that holds this site's kit or state too",
                next_step=f"move it to a folder of its own, and name that in local/data.yml of {kit.name}",
            )
        if isolation.user is None:
            continue
        uid, gid = isolation.user
        status = os.stat(path)
        wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if (status.st_mode >> shift) & wanted != wanted:
            raise RefusedError(
                "The job is refused",
                participant=kit.name,
                why=f"jobs run as user {uid} here, which may not read the data {name!r} ({path})",
                next_step=f"chmod -R o+rX {path}, or name a user that may in local/resources.yml (`user: NAME`)",
            )


def reason(error: FlError) -> str:
    """A refusal in one line."""
    return error.why or error.what
