"""The host key that user-data brought is dead after the first login: the machine gets one that no cloud has seen.

Whoever can read a machine's metadata (any process on it, anybody with read access to the account) can read its
user-data, and so the key that it booted with. So that key vouches for the very first login and for nothing else. The
new key goes over that login; its private half is not kept here.

What is accepted from a machine is written down before the machine is touched: `host_NAME.rotated` holds the fingerprint
of the boot key that it belongs to (a replaced machine boots with another, which makes the file void), the new public
key, and whether the machine has shown it. A crash at any point leaves a state from which the next login goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployer.errors import MachineError
from deployer.keys import KeyStore, make_pair
from deployer.ssh.machine import Machine
from deployer.ssh.pins import HostKeyPin, fingerprint, pin_host_key
from startup_kits.workspace import write_private

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


def accepted_keys(keys: KeyStore, participant: str) -> list[str]:
    """The public keys that a participant's machine may show now: two while a rotation is under way."""
    boot = keys.host(participant).public
    note = _note(keys, participant)
    if note is None:
        return [boot]
    return [note["public"]] if note["done"] else [boot, note["public"]]


def was_rotated(keys: KeyStore, participant: str) -> bool:
    """Whether a machine with the present boot key was logged in to: that key must never vouch for another one."""
    return _note(keys, participant) is not None


def pin_accepted(keys: KeyStore, participant: str, address: str, port: int) -> None:
    """Pins exactly the keys that the machine may show now."""
    first, *more = accepted_keys(keys, participant)
    keys.pin(address, port, first)
    for public in more:
        pin_host_key(keys.known_hosts, HostKeyPin(address, port, public), keep_others=True)


def rotate_host_key(machine: Machine, keys: KeyStore, participant: str, again: Callable[[], Machine]) -> bool:
    """Gives a machine its own host key at the first login; whether that was done now.

    Args:
        machine: logged in to, by its boot key or in a rotation that was interrupted.
        again: logs in anew, with the pins that are in the deployment's known_hosts by then.

    Raises:
        MachineError: the machine could not take the key.
        HostKeyError: it does not show it afterwards.
    """
    note = _note(keys, participant)
    if note is not None and note["done"]:
        return False
    facts = machine.facts()
    if not facts.root and not facts.systemd:
        return False  # no way to tell its SSH server
    shown = machine.transport.get_remote_server_key()
    public = f"{shown.get_name()} {shown.get_base64()}"
    if note is None or fingerprint(note["public"]) != fingerprint(public):
        pair = make_pair(f"fedspan-host-{participant}")
        public = pair.public
        _write(keys, participant, public, done=False)
        pin_accepted(keys, participant, machine.address, machine.port)
        machine.put_file(f"{pair.public}\n".encode(), facts.path(HOST_KEY + ".pub"), privileged=True)
        machine.put_file(pair.private.encode(), facts.path(HOST_KEY), 0o600, privileged=True)
        if facts.systemd:
            _reload(machine)
    keys.pin(machine.address, machine.port, public)
    again().close()
    _write(keys, participant, public, done=True)
    return True


def _reload(machine: Machine) -> None:
    """sshd reads its keys when it starts or is reloaded; its unit is `ssh` on Debian and Ubuntu, `sshd` elsewhere."""
    for unit in ("ssh.service", "sshd.service"):
        done = machine.run_privileged(["systemctl", "reload-or-restart", unit], check=False, timeout_s=60)
        if done.status == 0:
            return
    raise MachineError(
        "the machine's SSH server was given a new host key and does not reload",
        participant=machine.name,
        why=done.stderr.strip() or None,
        next_step="the same command again: both keys are accepted until the machine has shown the new one",
    )


def _path(keys: KeyStore, participant: str) -> Path:
    return keys.folder / f"host_{participant}.rotated"


def _note(keys: KeyStore, participant: str) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(_path(keys, participant).read_text())
    except FileNotFoundError:
        return None
    return note if note["boot"] == fingerprint(keys.host(participant).public) else None


def _write(keys: KeyStore, participant: str, public: str, *, done: bool) -> None:
    note = {"boot": fingerprint(keys.host(participant).public), "public": public, "done": done}
    write_private(_path(keys, participant), json.dumps(note).encode())
