"""SSH keys of a deployment: one to log in with, one host key for each machine, and the file that pins them.

All of it lies in `.fedspan/ssh` (0700). Host keys are made here, before the machine, so that the very first login is
already checked; a replaced machine gets a new one.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from startup_kits.workspace import write_private


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key: OpenSSH's PEM text, and the public line `ssh-ed25519 AAAA… comment`."""

    private: str
    public: str


def make_pair(comment: str) -> KeyPair:
    """A new key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private.decode(), f"{public.decode()} {comment}")


# participants are worked on in parallel, and share the key to log in with
_making = threading.Lock()


def _kept(path: Path, comment: str) -> KeyPair:
    with _making:
        return _read_or_make(path, comment)


def _read_or_make(path: Path, comment: str) -> KeyPair:
    public_path = path.with_name(path.name + ".pub")
    if path.is_file():
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return KeyPair(path.read_text(), f"{public.decode()} {comment}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pair = make_pair(comment)
    write_private(path, pair.private.encode())
    write_private(public_path, f"{pair.public}\n".encode(), mode=0o644)
    return pair


@dataclass(frozen=True)
class KeyStore:
    """The keys of one deployment."""

    folder: Path

    @property
    def login_path(self) -> Path:
        """The private key to log in with."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The pinned host keys, in OpenSSH's format."""
        return self.folder / "known_hosts"

    def login(self, federation: str) -> KeyPair:
        """The key to log in with, made at the first call."""
        return _kept(self.login_path, f"fedspan-{federation}")

    def host_path(self, participant: str) -> Path:
        """The private host key of a participant's machine."""
        return self.folder / f"host_{participant}"

    def host(self, participant: str) -> KeyPair:
        """The host key of a participant's machine: the renewed one where a renewal is on its way; made when missing."""
        renewed = self._renewed(participant)
        return _kept(renewed if renewed.is_file() else self.host_path(participant), f"fedspan-host-{participant}")

    def renew_host(self, participant: str) -> KeyPair:
        """A new host key, for the machine that is going to replace this one; `settle_host` ends the renewal."""
        self._renewed(participant).unlink(missing_ok=True)
        return _kept(self._renewed(participant), f"fedspan-host-{participant}")

    def settle_host(self, participant: str) -> None:
        """The machine with the renewed key stands: the old key must never be accepted again."""
        renewed = self._renewed(participant)
        if renewed.is_file():
            os.replace(renewed, self.host_path(participant))
            self.host_path(participant).with_name(f"host_{participant}.pub").unlink(missing_ok=True)
            renewed.with_name(renewed.name + ".pub").unlink(missing_ok=True)

    def _renewed(self, participant: str) -> Path:
        return self.folder / f"host_{participant}.next"

    def forget_host(self, participant: str) -> None:
        """The machine is gone: its key must never be accepted again."""
        for path in (self.host_path(participant), self._renewed(participant)):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".pub").unlink(missing_ok=True)

    def pin(self, address: str, port: int, public_key: str) -> None:
        """Accept exactly this key from `address`; what was pinned for it before goes."""
        from deployer.ssh.pins import HostKeyPin, pin_host_key

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pin_host_key(self.known_hosts, HostKeyPin(address, port, " ".join(public_key.split()[:2])))

    def unpin(self, address: str, port: int) -> None:
        """Accept no key from `address` any more."""
        from deployer.ssh.pins import forget_host_key

        if self.known_hosts.is_file():
            forget_host_key(self.known_hosts, address, port)

    def destroy(self) -> None:
        """Nothing is deployed any more: all keys go."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name == "known_hosts" or path.name.startswith(("id_ed25519", "host_", "known_hosts")):
                    os.unlink(path)


def host_entry(address: str, port: int) -> str:
    """How known_hosts names a machine: the bare address for port 22, else `[address]:port`."""
    return address if port == 22 else f"[{address}]:{port}"
