"""A control group for each machine, where nobody else gives it one.

Under a systemd, nspawn asks that for a scope. Without one (a container's or a small VM's init), two machines would both
take the group that the sandbox's daemon is in, and each other's processes with it: so each gets a group of its own, in
every hierarchy that systemd uses to keep track of processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
PREFIX = "fedspan-"
_GONE_S = 5.0


def has_systemd() -> bool:
    """Whether this computer is run by systemd."""
    return Path("/run/systemd/system").is_dir()


def hierarchies() -> list[Path]:
    """Those in which systemd tracks processes: the one of version 2, and version 1's named one beside it."""
    if (_ROOT / "cgroup.procs").exists():
        return [_ROOT]
    return [path for path in (_ROOT / "systemd", _ROOT / "unified") if (path / "cgroup.procs").exists()]


def enter(name: str) -> None:
    """Moves this process into the group of that name. Raises OSError."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))


def remove(prefix: str) -> None:
    """Removes all groups whose name starts with `prefix`, once their processes have gone."""
    for hierarchy in hierarchies():
        for group in hierarchy.glob(f"{prefix}*"):
            deadline = time.monotonic() + _GONE_S
            while group.exists() and time.monotonic() < deadline:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
                if group.exists():
                    time.sleep(0.05)
