"""A control group for each machine, where nobody else gives it one.

Under a systemd, nspawn asks that for a scope. Without one (a container's or a small VM's init), two machines would both
take the group that the sandbox's daemon is in, and each other's processes with it: so each gets a group of its own, in
every hierarchy that systemd uses to keep track of processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

_LOG = logging.getLogger(__name__)
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
    """Moves this process into the group of that name, made if it is not there.

    Raises:
        OSError: the kernel takes no group there, or no process in it.
    """
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))


def remove(name: str) -> None:
    """Removes the group of that name with all groups in it, once their processes have gone."""
    for hierarchy in hierarchies():
        _remove(hierarchy / name)


def sweep(prefix: str) -> None:
    """Removes all groups whose name starts with `prefix`, likewise."""
    for hierarchy in hierarchies():
        for group in hierarchy.glob(f"{prefix}*"):
            _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _GONE_S
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # a process is still in it
                os.rmdir(folder)
        if group.exists():
            if time.monotonic() > deadline:
                _LOG.warning("control group %s: not removed: processes are still in it", group)
                return
            time.sleep(0.05)
