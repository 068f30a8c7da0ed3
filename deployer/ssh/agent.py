"""Keys to log in with: those of the operator's SSH agent, and one file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko

USUAL = ("id_ed25519", "id_ecdsa", "id_rsa")
"""Names of the keys that an operator's ssh tries, in `~/.ssh`."""

UNUSABLE = (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType)
"""What paramiko raises for the file of a key that can't be used; `TypeError` where it has a passphrase."""


def candidates(path: Path, agent: bool, load: Callable[[Path], paramiko.PKey]) -> list[Any]:
    """The keys to try, in order: the agent's where it is asked for, then the file's.

    A missing or unusable file is no fault as long as the agent has a key.
    """
    found: list[Any] = list(paramiko.Agent().get_keys()) if agent else []
    if not found or path.is_file():
        try:
            found.append(load(path))
        except Exception:
            if not found:
                raise
    return found


def operators_keys(agent: bool) -> list[Any]:
    """The keys of the operator's home that need no passphrase, then (with `agent`) the agent's."""
    found: list[Any] = []
    for name in USUAL:
        with contextlib.suppress(*UNUSABLE):
            found.append(paramiko.PKey.from_path(Path.home() / ".ssh" / name))
    return found + (list(paramiko.Agent().get_keys()) if agent else [])
