"""May this job run here? The site decides: envelope, submitter, data. A refusal says why."""

from __future__ import annotations

from fl_runtime.errors import FlError, RefusedError
from fl_runtime.job.envelope import Envelope, open_envelope
from fl_runtime.job.spec import JobSpec
from fl_runtime.kit import Kit, machine_path
from fl_runtime.proto import fedspan_pb2 as pb


def check_envelope(kit: Kit, start: pb.JobStart, known: bytes | None, ended: bool) -> Envelope:
    """The signature, the signer, and that this job id was not used for something else.

    Args:
        known: the envelope under which this site has seen the job id before.

    Raises:
        RefusedError: with the reason.
    """
    sealed = start.envelope
    envelope = open_envelope(kit, sealed.document, sealed.signature, sealed.certificate)
    if envelope.job != start.job or envelope.bundle != start.bundle.blob:
        raise RefusedError(
            "The job is refused", participant=kit.name, why="its bundle or id is not the one that its submitter signed"
        )
    if envelope.sites is not None and kit.name not in envelope.sites:
        raise RefusedError("The job is refused", participant=kit.name, why="it is not meant for this site")
    if known is not None and (known != sealed.document or ended):
        raise RefusedError("The job is refused", participant=kit.name, why="its id was used here before")
    allowed = kit.policy().submitters
    signer = envelope.signer
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
        paths[name] = str(place)
    scripts = kit.policy().scripts
    if "any" not in scripts and spec.entry and spec.entry not in scripts:
        raise RefusedError(
            "The job is refused",
            participant=kit.name,
            why=f"its script {spec.entry} is not on this site's list ({', '.join(scripts) or 'empty'})",
        )
    return paths


def reason(error: FlError) -> str:
    """A refusal in one line."""
    return error.why or error.what
