"""Host keys that are known before the first connection.

The file is OpenSSH's `known_hosts` format, so that plain `ssh -o UserKnownHostsFile=…` works with it too. One line a
key: `[address]:port ssh-ed25519 AAAA…` (`address` alone for port 22, as OpenSSH writes it).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fl_runtime.durable import write_whole


def host_label(address: str, port: int) -> str:
    """The name under which OpenSSH looks an address up: bare for port 22, `[address]:port` for any other."""
    return address if port == 22 else f"[{address}]:{port}"


def fingerprint(public_key: str) -> str:
    """`SHA256:…` of an OpenSSH public key line (`ssh-ed25519 AAAA… comment`), as `ssh-keygen -l` prints it."""
    blob = base64.b64decode(public_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@dataclass(frozen=True)
class HostKeyPin:
    """One host key that a machine is expected to show.

    Attributes:
        address: IP address or host name that is dialled.
        port: SSH port.
        public_key: OpenSSH public key, `ssh-ed25519 AAAA…`; a comment is dropped.
    """

    address: str
    port: int
    public_key: str

    @property
    def key_type(self) -> str:
        return self.public_key.split()[0]

    @property
    def blob(self) -> bytes:
        """The key as it is sent on the wire."""
        return base64.b64decode(self.public_key.split()[1])

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)

    @property
    def line(self) -> str:
        kind, blob = self.public_key.split()[:2]
        return f"{host_label(self.address, self.port)} {kind} {blob}"


def read_pins(known_hosts: Path, address: str, port: int) -> list[HostKeyPin]:
    """The pins of one address and port; empty where the file or the address is missing."""
    try:
        text = known_hosts.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    wanted = host_label(address, port)
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and not line.startswith(("#", "@")) and _names(fields[0], wanted):
            found.append(HostKeyPin(address, port, f"{fields[1]} {fields[2]}"))
    return found


def pin_host_key(known_hosts: Path, pin: HostKeyPin, *, keep_others: bool = False) -> None:
    """Writes a pin; earlier pins of the same address and port go unless `keep_others` (a key is being rotated)."""
    with _edited(known_hosts) as lines:
        if not keep_others:
            _drop(lines, pin.address, pin.port)
        if pin.line not in lines:
            lines.append(pin.line)


def forget_host_key(known_hosts: Path, address: str, port: int) -> None:
    """Drops every pin of an address and port: its machine is gone, another may get the address."""
    if known_hosts.exists():
        with _edited(known_hosts) as lines:
            _drop(lines, address, port)


def _names(entry: str, wanted: str) -> bool:
    """Whether a line's first field names a host: a list of names, or one hashed name (Debian's default)."""
    if not entry.startswith("|1|"):
        return wanted in entry.split(",")
    try:
        salt, digest = (base64.b64decode(part) for part in entry[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, wanted.encode(), "sha1").digest(), digest)


def _drop(lines: list[str], address: str, port: int) -> None:
    """Takes a host out, as `read_pins` would find it; the other names of a shared line stay."""
    label = host_label(address, port)
    kept = []
    for line in lines:
        entry, *rest = line.split(maxsplit=1) or [""]
        if entry.startswith(("#", "@")) or not _names(entry, label):
            kept.append(line)
        elif others := [name for name in entry.split(",") if name != label and not entry.startswith("|1|")]:
            kept.append(" ".join([",".join(others), *rest]))
    lines[:] = kept


@contextlib.contextmanager
def _edited(path: Path) -> Iterator[list[str]]:
    """The file's lines, to change in place: written whole, by one editor at a time (pushes run in parallel)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        yield lines
        write_whole(path, "".join(line + "\n" for line in lines).encode())
    finally:
        os.close(folder)
