"""The signature of a kit: which files it covers, and how a changed, added or missing one is found.

Covered are the scripts and the README at the root and all of `startup/` except the private key (so that keys can be
born on site) and the signature itself. `local/` and `transfer/` belong to the site and are free.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography import x509

from startup_kits.certificates import Authority, verify_signature
from startup_kits.errors import KitError

SIGNATURE = "startup/signature.json"
PRIVATE_KEY = "startup/participant.key"
FREE = ("local", "transfer")
LOCAL = FREE[0]
ALGORITHM = "ecdsa-p256-sha256"
_VERSION = 1
#: Scripts, certificates and a page of YAML: anything larger is no kit.
_MAX_FILE = 1024 * 1024


def covered_files(kit: Path) -> dict[str, str]:
    """SHA-256 by path of every file that the signature covers.

    Raises:
        KitError: the folder holds a link, a device or something else that is no plain file, or a huge one.
    """
    found: dict[str, str] = {}
    pending = [kit]
    while pending:
        for entry in sorted(pending.pop().iterdir()):
            path = PurePosixPath(entry.relative_to(kit)).as_posix()
            if path in FREE and entry.is_dir() and not entry.is_symlink():
                if path == LOCAL:
                    check_local(entry)
                continue
            if path in (SIGNATURE, PRIVATE_KEY):
                continue
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise KitError(f"{path} in the kit is not a plain file", why="a kit holds no links and no devices")
            if entry.is_dir():
                pending.append(entry)
            elif entry.stat().st_size > _MAX_FILE:
                raise KitError(f"{path} in the kit is larger than {_MAX_FILE} bytes")
            else:
                found[path] = hashlib.sha256(entry.read_bytes()).hexdigest()
    return found


def check_local(folder: Path) -> None:
    """Refuses links in `local/`: what is read from there would come from anywhere.

    Raises:
        KitError: naming the first one.
    """
    for entry in sorted(folder.rglob("*")):
        if entry.is_symlink():
            name = f"{LOCAL}/{entry.relative_to(folder).as_posix()}"
            raise KitError(f"{name} in the kit is a link", why="a kit holds no links", next_step=f"rm {entry}")


def sign(authority: Authority, files: dict[str, str], participant: str, federation: str) -> bytes:
    """The content of `startup/signature.json`."""
    statement = _statement(files, participant, federation)
    signature = base64.b64encode(authority.sign(_canonical(statement))).decode()
    return json.dumps({**statement, "algorithm": ALGORITHM, "signature": signature}, indent=1).encode() + b"\n"


def check(kit: Path, ca: x509.Certificate, participant: str, federation: str) -> None:
    """Checks that the kit is as it was signed.

    Raises:
        KitError: naming every path that was changed, added or is missing; or the signature itself is wrong.
    """
    try:
        document: dict[str, Any] = json.loads((kit / SIGNATURE).read_bytes()[:_MAX_FILE])
        files = document["files"]
        signature = base64.b64decode(document["signature"], validate=True)
        named = (document["version"], document["algorithm"], document["participant"], document["federation"])
    except FileNotFoundError:
        raise KitError("the kit is not signed", participant=participant, why=f"{SIGNATURE} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise KitError("the kit's signature can't be read", participant=participant, why=SIGNATURE) from None
    if named != (_VERSION, ALGORITHM, participant, federation) or not isinstance(files, dict):
        raise KitError(
            "the kit's signature is for something else",
            participant=participant,
            why=f"it speaks of {named[2]!r} in {named[3]!r}, version {named[0]}, {named[1]}",
        )
    if not verify_signature(ca, _canonical(_statement(files, participant, federation)), signature):
        raise KitError("the kit's signature is not the CA's", participant=participant, why=SIGNATURE)
    present = covered_files(kit)
    differences = [
        *(f"{path} was changed" for path in sorted(files.keys() & present) if files[path] != present[path]),
        *(f"{path} was added" for path in sorted(present.keys() - files)),
        *(f"{path} is missing" for path in sorted(files.keys() - present)),
    ]
    if differences:
        raise KitError(
            "the kit is not as it was signed",
            participant=participant,
            why="; ".join(differences),
            next_step="ask the federation's lead for the kit again",
        )


def _statement(files: dict[str, str], participant: str, federation: str) -> dict[str, object]:
    return {"version": _VERSION, "federation": federation, "participant": participant, "files": files}


def _canonical(statement: dict[str, object]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
