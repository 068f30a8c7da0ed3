"""Sweeps up after a daemon, whether it ended in order or was killed."""

from __future__ import annotations

import os
from pathlib import Path

from deployer.sandbox.machines import disk, tree
from deployer.sandbox.machines.nspawn import cgroup
from deployer.sandbox.machines.nspawn.core import NOTE, remove
from deployer.sandbox.machines.nspawn.kind import group_prefix
from deployer.sandbox.state import FAULTS, LOCK, MADE, try_lock


def clean(home: Path, faults: bool = True) -> None:
    """Removes what a life of the daemon left: processes, machines, volumes, state. Only for who holds the lock."""
    tree.end_strays(os.fsencode(f"FEDSPAN_ROOT={home / 'machines'}/"))
    if (home / NOTE).exists():
        cgroup.sweep(group_prefix(home))
        remove(home)
    for name in MADE:
        if faults or name != FAULTS:
            disk.remove(home / name)
    for draft in home.glob(".*.json.*"):
        disk.remove(draft)


def sweep(home: Path) -> None:
    """`clean`, unless a daemon lives there."""
    lock = try_lock(home / LOCK)
    if lock is not None:
        try:
            clean(home)
        finally:
            os.close(lock)
