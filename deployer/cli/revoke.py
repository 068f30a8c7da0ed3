"""`fedspan revoke`: a participant's certificate is no longer worth anything, from now on and everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployer.cli import context
from deployer.errors import UsageError

if TYPE_CHECKING:
    from startup_kits.certificates import Authority
    from startup_kits.revocation import Revocations
    from startup_kits.spec import FederationSpec
    from startup_kits.workspace import Workspace


def revoke(
    who: Annotated[list[str] | None, typer.Argument(help="Participants by name, or serials of certificates.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the workspace.")] = "",
    renew: Annotated[bool, typer.Option("--renew", help="Sign the list anew, under a new number and date.")] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Holds the passphrase of the CA's key.")
    ] = None,
) -> None:
    """Revoke certificates: sign the list, write it into every kit, and hand it to the running server at once."""
    from startup_kits import revocation
    from startup_kits.passphrase import PassphraseSource
    from startup_kits.spec import load_spec

    names = who or []
    if bool(names) == renew:
        raise UsageError("name whom to revoke, or --renew the list", next_step="fedspan revoke NAME|SERIAL")
    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    found = [one for name in names for one in revocation.find(workspace, name)]
    before = revocation.load(workspace)
    new = [one for one in found if one.serial not in before.serials]
    if new:
        listed = ", ".join(f"{one.name or 'unknown'} ({one.serial})" for one in new)
        context.confirm(f"Revoke for good: {listed}?")
    source = PassphraseSource.for_terminal(workspace.passphrase_path, passphrase_file)
    current = revocation.revoke(workspace, spec.name, found, reason, lambda: _authority(workspace, source.existing()))
    server = _hand_over(workspace, spec, current) if current.number else "nothing to hand over"
    still = sorted({one.name for one in found} & {"server", *spec.sites, *spec.admins})
    if context.options().json:
        context.emit(
            {
                "number": current.number,
                "revoked": [{"serial": one.serial, "name": one.name} for one in new],
                "already": [one.serial for one in found if one not in new],
                "serials": sorted(current.serials),
                "in_force": not server,
                "why_not": server or None,
                "still_in_spec": still,
            }
        )
        return
    for one in found:
        context.say(f"  {one.name or 'unknown':<20} {one.serial}{'' if one in new else '  (was revoked already)'}")
    context.say(f"list {current.number}: {len(current.serials)} revoked, in every kit of {workspace.kits_dir}")
    if server:
        context.say(f"not handed to the server: {server}\n  next: fedspan up")
    else:
        context.say("in force at the server and at every connected site")
    if still and new:
        context.say(
            f"{', '.join(still)}: still in {workspace.spec_path.name}. fedspan provision makes a new certificate with a"
            " new key; take the entry out of the spec where the participant is to stay away"
        )


def _authority(workspace: Workspace, passphrase: bytes) -> Authority:
    from startup_kits.certificates import Authority
    from startup_kits.errors import KitError

    try:
        certificate, key = ((workspace.ca_dir / name).read_bytes() for name in ("ca.crt", "ca.key"))
    except FileNotFoundError:
        raise KitError("there is no CA yet", next_step="fedspan provision") from None
    return Authority.load(certificate, key, passphrase)


def _hand_over(workspace: Workspace, spec: FederationSpec, current: Revocations) -> str:
    """Give the list to the running server with a lead's kit; why that was not possible, or nothing."""
    from startup_kits import revocation
    from startup_kits.kit import Kit

    why = "no lead has a kit here that is not revoked"
    for name, admin in spec.admins.items():
        folder = workspace.kits_dir / name
        if admin.role != "lead" or not folder.is_dir():
            continue
        kit = Kit.open(folder)
        if revocation.serial_of(kit.certificate) in current.serials:
            continue
        if kit.endpoint().server is None:
            return "its address is not known yet"
        from fl_runtime.admin import Session
        from fl_runtime.errors import FlError

        try:
            with Session(folder) as session:
                session.revoke(current.document, current.signature)
            return ""
        except FlError as error:
            why = error.what + (f": {error.why}" if error.why else "")
    return why
