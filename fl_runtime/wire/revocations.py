"""Revoked certificates: a numbered list that the federation's CA has signed, kept by the hub and by every agent.

The document is canonical JSON: version, federation, number, issued, not_after (Unix seconds), serials (lower-case hex,
sorted). The signature is ECDSA with SHA-256 by the CA's key. In a kit it lies in `local/revoked.json`, beside nothing
secret: who replaces it by an older one achieves nothing, because only a higher number is ever taken.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fl_runtime.durable import write_whole
from fl_runtime.errors import FlError, RefusedError
from fl_runtime.signed import canonical

log = logging.getLogger("fedspan")

KIT_FILE = "revoked.json"  # under local/
MAX_BYTES = 4 * 1024 * 1024  # some 80 000 serials
_SKEW_S = 24 * 3600.0  # like the certificates' backdating
_KEYS = {"version", "federation", "number", "issued", "not_after", "serials"}


@dataclass(frozen=True)
class RevocationList:
    """A checked list, with the bytes that were signed."""

    federation: str
    number: int
    issued: float
    not_after: float
    serials: frozenset[str]
    document: bytes
    signature: bytes

    @classmethod
    def parse(cls, document: bytes, signature: bytes, ca: bytes) -> RevocationList:
        """Check a list against the CA (PEM).

        Raises:
            RefusedError: with the reason.
        """

        def refuse(why: str) -> RefusedError:
            return RefusedError(
                "The list of revoked certificates is refused",
                why=why,
                next_step="fedspan revoke --renew, in the federation's workspace",
            )

        if len(document) > MAX_BYTES:
            raise refuse(f"it has {len(document)} bytes; at most {MAX_BYTES} are read")
        authority = x509.load_pem_x509_certificate(ca)
        key = authority.public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(signature, document, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise refuse("it is not signed by this federation's CA, or was changed") from None
        try:
            body: dict[str, Any] = json.loads(document)
            if not isinstance(body, dict) or set(body) != _KEYS or body["version"] != 1:
                raise ValueError("another version or form")
            serials = body["serials"]
            if canonical(body) != document or not all(isinstance(one, str) and _is_serial(one) for one in serials):
                raise ValueError("not in canonical form")
            found = cls(
                federation=str(body["federation"]),
                number=int(body["number"]),
                issued=float(body["issued"]),
                not_after=float(body["not_after"]),
                serials=frozenset(serials),
                document=document,
                signature=signature,
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise refuse(f"its document is not readable: {error}") from None
        if found.number < 1:
            raise refuse(f"its number is {found.number}")
        return found

    def is_revoked(self, serial: str) -> bool:
        """Whether this serial (lower-case hex) is on the list. A list that is past its time still counts."""
        return serial in self.serials

    def fresh(self, now: float | None = None) -> bool:
        """Whether the list's time has begun and has not ended: for policies that want a recent one."""
        now = time.time() if now is None else now
        return self.issued - _SKEW_S <= now <= self.not_after


def _is_serial(text: str) -> bool:
    return 0 < len(text) <= 40 and all(char in "0123456789abcdef" for char in text)


def read_file(path: Path) -> tuple[bytes, bytes] | None:
    """(document, signature) of a list's file, not checked yet; None where there is none, or none that can be read."""
    found = _read(path)
    return found[:2] if found is not None else None


def _read(path: Path, kept: bool = False) -> tuple[bytes, bytes, bytes] | None:
    """The same, and the CA's certificate under which a kept list was taken (empty in a kit, and in older files)."""
    try:
        with open(path, "rb") as file:
            text = file.read(2 * MAX_BYTES)
        outer = json.loads(text)
        if kept and not set(outer) <= {"document", "signature", "ca"}:
            raise ValueError(f"it holds {', '.join(sorted(outer))}")
        document, signature = str(outer["document"]).encode(), base64.b64decode(outer["signature"], validate=True)
        return document, signature, str(outer.get("ca", "")).encode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.error("%s can't be read: %s", path, error)
        return None


def write_file(path: Path, document: bytes, signature: bytes, ca: bytes = b"") -> None:
    """Write a list's file: whole and on disk, or not at all. `ca`: under which it was taken, PEM."""
    outer = {"document": document.decode(), "signature": base64.b64encode(signature).decode()}
    if ca:
        outer["ca"] = ca.decode()
    write_whole(path, (json.dumps(outer, indent=1) + "\n").encode())


class RevocationBook:
    """The newest list that a hub or an agent has seen. It survives restarts and never goes back.

    Args:
        state: the state folder; the list lies there as `revoked.json`.
        kit: the kit's folder; `local/revoked.json` is read whenever it has changed.
        ca: the CA's certificate, PEM.
        changed: called with each list that is newly in force, on the thread that brought it, without a lock held.

    Raises:
        FlError: the list in the state folder is damaged, and the kit has none: who was revoked is not known.
    """

    def __init__(
        self,
        state: Path,
        kit: Path,
        ca: bytes,
        federation: str,
        changed: Callable[[RevocationList], None] = lambda found: None,
    ) -> None:
        self._path = state / KIT_FILE
        self._kit_path = kit / "local" / KIT_FILE
        self._ca = ca
        self._federation = federation
        self._changed: Callable[[RevocationList], None] = changed
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None  # the kit's list that was taken or refused
        self._waits = False  # there is one that could not be kept yet
        self.current: RevocationList | None = None
        damaged = not self._take_kept()
        self._look(quiet=True)
        if damaged and self.current is None:
            raise FlError(
                "The list of revoked certificates can't be read",
                why=f"{self._path} is damaged, and nobody is let in while it is not known who was revoked",
                next_step=f"put the newest list (fedspan revoke --renew) into {self._kit_path}, then start again",
            )

    def _take_kept(self) -> bool:
        """Put the list of the state folder in force; False where it is damaged. One of a CA that is no more, since the
        federation was provisioned anew, is as good as none: it bears out the CA that it was taken under."""
        kept = _read(self._path, kept=True)
        if kept is None:
            return not os.path.lexists(self._path)
        document, signature, ca = kept
        try:
            self.current = self._checked(document, signature)
        except FlError as error:
            if not ca:  # an older version wrote it: whose it was can't be told, and nobody new is to be locked out
                log.error("%s: %s", self._path, error)
                return True
            try:
                RevocationList.parse(document, signature, ca)
            except (FlError, ValueError):
                return False
            return ca != self._ca
        if ca != self._ca:
            with contextlib.suppress(OSError):  # the next start does it
                write_file(self._path, document, signature, self._ca)
        return True

    def is_revoked(self, serial: str) -> bool:
        current = self.current
        return current is not None and current.is_revoked(serial)

    @property
    def serials(self) -> frozenset[str]:
        current = self.current
        return current.serials if current is not None else frozenset()

    def offer(self, document: bytes, signature: bytes, quiet: bool = False) -> bool:
        """Take a list if its number is higher than that of the one in force; whether it was taken. Durable on return.

        Raises:
            RefusedError: it is not a list of this federation's CA.
        """
        found = self._checked(document, signature)
        with self._lock:
            if self.current is not None and found.number <= self.current.number:
                return False
            write_file(self._path, document, signature, self._ca)
            self.current = found
        log.info("list %d of revoked certificates is in force: %d serials", found.number, len(found.serials))
        if not quiet:
            self._changed(found)
        return True

    def look(self) -> None:
        """Take the kit's list if it has changed and is newer. Cheap: one stat when nothing has happened.

        One that can't be kept now, for want of disk, is tried again with the next look.
        """
        try:
            self._look()
            self._waits = False
        except OSError as error:
            if not self._waits:
                log.error("%s can't be kept, and is tried again: %s", self._kit_path, error)
            self._waits = True

    def _look(self, quiet: bool = False) -> None:
        try:
            status = self._kit_path.stat()
        except OSError:
            return
        mark = (status.st_mtime_ns, status.st_ino, status.st_size)
        if mark == self._seen:
            return
        found = read_file(self._kit_path)
        try:
            if found is not None:
                self.offer(*found, quiet=quiet)
        except FlError as error:
            log.error("%s: %s", self._kit_path, error)
        self._seen = mark

    def _checked(self, document: bytes, signature: bytes) -> RevocationList:
        found = RevocationList.parse(document, signature, self._ca)
        if found.federation != self._federation:
            raise RefusedError(
                "The list of revoked certificates is refused", why=f"it is of the federation {found.federation}"
            )
        return found
