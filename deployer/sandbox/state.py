"""Where a sandbox lives, and what its daemon leaves there for others to find it. Light: `status` imports it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployer.sandbox.machines.tree import alive

HOME_VARIABLE = "FEDSPAN_SANDBOX_HOME"
WORKSTATION = "198.51.100.10"
"""The address by which the emulated world knows this computer (RFC 5737: belongs to nobody)."""

DEFAULT_REGION = "eu-central-1"

# What a daemon makes in its home and takes away at its end; its log stays for whoever wants to know what happened.
# The locks stay too: who removes a lock's file breaks the lock of whoever waits for it.
LOG, STATE, LOCK, START_LOCK, FAULTS = "daemon.log", "state.json", "daemon.lock", "start.lock", "faults.json"
MADE = ("machines", "volumes", "aws", "azure", "engine", "home", "empty-home", "tmp", FAULTS, STATE)


def home_folder() -> Path:
    """The sandbox's folder: FEDSPAN_SANDBOX_HOME, else fedspan/sandbox in the user's state folder."""
    if given := os.environ.get(HOME_VARIABLE):
        return Path(given).absolute()
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base).absolute() / "fedspan" / "sandbox"


@dataclass(frozen=True)
class SandboxState:
    """`state.json` of a running daemon."""

    realm_id: str
    pid: int
    started: str | None  # the process's start time: with the pid, it is that process and no other
    version: str
    control: tuple[str, int]
    token: str
    ssh_port: int
    block: str
    driver: str  # "process" or "nspawn"
    aws_url: str
    arm_url: str
    metadata_url: str
    ca_file: str
    azure: Mapping[str, str] = field(default_factory=dict)  # environment of Azure's clients

    def save(self, home: Path) -> None:
        path = home / STATE
        draft = home / f".{STATE}.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=1)
        os.replace(draft, path)

    @classmethod
    def load(cls, home: Path) -> SandboxState | None:
        """The state of the daemon that lives in `home`; None without one, or when it is dead."""
        try:
            data: dict[str, Any] = json.loads((home / STATE).read_text())
            host, port = data["control"]
            state = cls(**{**data, "control": (str(host), int(port))})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return state if alive(state.pid, state.started) else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file; it ends with this process however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed, or None when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log, or ""."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""
