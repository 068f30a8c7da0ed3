"""Revoked certificates: who was issued what, and the numbered list, signed by the CA, that every kit carries.

The workspace keeps two files in `.fedspan/`: `issued.jsonl`, a line for each certificate ever issued, and
`revocations.json`, the list with names and reasons. A kit's `local/revoked.json` holds the signed part only. Server and
sites (`fl_runtime.wire.revocations`) take a list when its number is higher than that of the one they have.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from startup_kits.certificates import BACKDATED, Authority, Subject, load_certificate
from startup_kits.errors import KitError
from startup_kits.kit import CERTIFICATE, PARTICIPANT
from startup_kits.workspace import Workspace, write_private

KIT_FILE = "local/revoked.json"
#: A site whose policy wants a fresh list refuses jobs when its list is older than this.
LIST_LIFETIME = dt.timedelta(days=90)
#: `fedspan provision` signs a list anew when less than this is left of it.
RENEW_LIST_BEFORE = dt.timedelta(days=30)
_SERIAL_DIGITS = 16  # at least so many hex digits make a serial, or a name might be taken for one


@dataclass(frozen=True)
class Issued:
    """A certificate that this CA has issued. `serial` is lower-case hex, `not_after` in Unix seconds."""

    serial: str
    name: str
    role: str
    not_after: float


@dataclass(frozen=True)
class Entry:
    """A revoked certificate. `not_after` is None where the certificate is not known here; `at` in Unix seconds."""

    serial: str
    name: str
    reason: str
    at: float
    not_after: float | None


@dataclass(frozen=True)
class Revocations:
    """The workspace's list; number 0: none was ever made."""

    number: int = 0
    not_after: float = 0.0
    entries: tuple[Entry, ...] = ()
    document: bytes = b""
    signature: bytes = b""

    @property
    def serials(self) -> frozenset[str]:
        return frozenset(entry.serial for entry in self.entries)

    def kit_file(self) -> bytes:
        """The content of a kit's `local/revoked.json`."""
        outer = {"document": self.document.decode(), "signature": base64.b64encode(self.signature).decode()}
        return json.dumps(outer, indent=1).encode() + b"\n"


def load(workspace: Workspace) -> Revocations:
    """The workspace's list.

    Raises:
        KitError: its file is damaged.
    """
    path = _path(workspace)
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return Revocations(
            number=int(content["number"]),
            not_after=float(content["not_after"]),
            entries=tuple(Entry(**entry) for entry in content["entries"]),
            document=str(content["document"]).encode(),
            signature=base64.b64decode(content["signature"], validate=True),
        )
    except FileNotFoundError:
        return Revocations()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(
            f"{path} can't be read", why=str(error), next_step="restore .fedspan/revocations.json from your backup"
        ) from None


def find(workspace: Workspace, who: str) -> list[Issued]:
    """The certificates that a name or a serial stands for: of a name all that have not expired.

    Raises:
        KitError: neither a participant of this workspace, nor a serial.
    """
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    known = {one.serial: one for one in [*_recorded(workspace), *_present(workspace)]}
    named = [one for one in known.values() if one.name == who and one.not_after > now]
    if named:
        return named
    serial = who.lower().removeprefix("0x").replace(":", "").lstrip("0")
    if serial in known:
        return [known[serial]]
    if len(serial) >= _SERIAL_DIGITS and not set(serial) - set("0123456789abcdef"):
        return [Issued(serial, "", "", 0.0)]
    names = ", ".join(sorted({one.name for one in known.values()})) or "nobody"
    raise KitError(
        f"{who!r} has no certificate here",
        why=f"neither a serial, nor one of those who have one: {names}",
        next_step="fedspan kit show KIT tells a kit's serial",
    )


def revoke(
    workspace: Workspace,
    federation: str,
    certificates: Sequence[Issued],
    reason: str,
    authority: Callable[[], Authority],
) -> Revocations:
    """Put certificates on the list, sign it under a new number, and write it into every kit here.

    Revoked already: nothing is signed. With no certificates at all, the list is renewed.

    Args:
        authority: the CA, asked for only when something must be signed.

    Raises:
        KitError: the CA's passphrase is missing or wrong.
    """
    now = dt.datetime.now(dt.timezone.utc)
    current = load(workspace)
    new = [
        Entry(one.serial, one.name, reason, now.timestamp(), one.not_after or None)
        for one in certificates
        if one.serial not in current.serials
    ]
    if new or not certificates:
        current = _sign(workspace, federation, replace(current, entries=(*current.entries, *new)), authority(), now)
    distribute(workspace, current)
    return current


def renew_if_due(workspace: Workspace, federation: str, authority: Callable[[], Authority]) -> Revocations:
    """Sign the list anew when its time is nearly over; a federation that never made one gets none."""
    current = load(workspace)
    now = dt.datetime.now(dt.timezone.utc)
    if current.number and current.not_after - now.timestamp() < RENEW_LIST_BEFORE.total_seconds():
        current = _sign(workspace, federation, current, authority(), now)
    distribute(workspace, current)
    return current


def distribute(workspace: Workspace, current: Revocations) -> None:
    """Every kit of the workspace carries the list."""
    if not current.number:
        return
    content = current.kit_file()
    for kit in sorted(path.parent.parent for path in workspace.kits_dir.glob(f"[!.]*/{PARTICIPANT}")):
        file = kit / KIT_FILE
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            write_private(file, content, 0o644)


def note_issued(workspace: Workspace, certificate: x509.Certificate) -> None:
    """Remember a certificate, before anybody gets it."""
    one = _issued(certificate)
    path = workspace.state_dir / "issued.jsonl"
    lines = path.read_bytes() if path.exists() else b""
    write_private(path, lines + json.dumps(asdict(one)).encode() + b"\n")


def serial_of(certificate: x509.Certificate) -> str:
    """As lists name it: lower-case hex."""
    return f"{certificate.serial_number:x}"


def _issued(certificate: x509.Certificate) -> Issued:
    subject = Subject.of(certificate)
    return Issued(serial_of(certificate), subject.name, subject.role, certificate.not_valid_after_utc.timestamp())


def _recorded(workspace: Workspace) -> list[Issued]:
    path = workspace.state_dir / "issued.jsonl"
    if not path.exists():
        return []
    try:
        return [Issued(**json.loads(line)) for line in path.read_text().splitlines() if line.strip()]
    except (ValueError, TypeError) as error:
        raise KitError(
            f"{path} can't be read", why=str(error), next_step="restore it from your backup, or move it away"
        ) from None


def _present(workspace: Workspace) -> list[Issued]:
    """The certificates in the workspace's kits: some may be older than the record."""
    found = []
    for path in sorted(workspace.kits_dir.glob(f"[!.]*/{CERTIFICATE}")):
        found.append(_issued(load_certificate(path.read_bytes(), str(path))))
    return found


def _sign(
    workspace: Workspace, federation: str, current: Revocations, authority: Authority, now: dt.datetime
) -> Revocations:
    # What has expired can't be used any more, by nobody whose clock is less than a day off.
    over = (now - 2 * BACKDATED).timestamp()
    entries = tuple(one for one in current.entries if one.not_after is None or one.not_after > over)
    number, not_after = current.number + 1, (now + LIST_LIFETIME).timestamp()
    document = json.dumps(
        {
            "version": 1,
            "federation": federation,
            "number": number,
            "issued": int(now.timestamp()),
            "not_after": int(not_after),
            "serials": sorted(one.serial for one in entries),
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    signed = Revocations(number, not_after, entries, document, authority.sign(document))
    content = {
        "number": number,
        "not_after": not_after,
        "entries": [asdict(one) for one in entries],
        "document": document.decode(),
        "signature": base64.b64encode(signed.signature).decode(),
    }
    write_private(_path(workspace), json.dumps(content, indent=1).encode() + b"\n")
    return signed


def _path(workspace: Workspace) -> Path:
    return workspace.state_dir / "revocations.json"
