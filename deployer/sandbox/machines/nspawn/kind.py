"""How the driver has a machine made by systemd-nspawn."""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from pathlib import Path

from deployer.sandbox.machines.kind import MachineKind
from deployer.sandbox.machines.nspawn import cgroup, tools
from deployer.sandbox.state import try_lock

_RUN = Path("/run/systemd/nspawn")
SHUTDOWN_S = 20.0
"""How long an ordered shutdown of a whole system may take."""


def group_prefix(home: Path) -> str:
    """What the control groups of a sandbox's machines begin with."""
    return f"{cgroup.PREFIX}{zlib.crc32(str(home).encode()):08x}-"


def forget(machine: str) -> None:
    """Removes what a killed nspawn leaves in /run."""
    with contextlib.suppress(OSError):
        (_RUN / "propagate" / machine).rmdir()
    for lock in [*(_RUN / "locks").glob("inode-*"), *(_RUN / "locks").glob(f"machine-{machine}")]:
        # The name is of the root's inode; whoever still needs a lock has it locked.
        if (held := try_lock(lock)) is not None:
            lock.unlink(missing_ok=True)
            os.close(held)


def nspawn_kind(home: Path, image: Path, core: str) -> MachineKind:
    """Machines from the root file system `image`, on the network `core` of the sandbox in `home`."""
    prefix = group_prefix(home)

    def command(setup: Path) -> list[str]:
        # In mount and network namespaces of its own: what is made there ends with the last process in them. And as the
        # first process of a PID namespace, with which the kernel kills all that runs in it: nspawn alone, when it is
        # killed, leaves its system running.
        words = ["unshare", "--mount", "--net", "--propagation", "private", "--pid", "--fork", "--mount-proc"]
        words += ["--kill-child=KILL", "--"]
        return [*words, sys.executable, "-m", "deployer.sandbox.machines.nspawn.machine", str(setup)]

    def buried(folder: Path) -> None:
        cgroup.remove(f"{prefix}{folder.name}")
        forget(folder.name)

    return MachineKind(
        name="nspawn",
        shutdown_s=SHUTDOWN_S,
        command=command,
        buried=buried,
        options={"image": str(image), "core": core, "group": prefix, "azure": str(home / "azure")},
        environment={"PATH": tools.PATH},
    )
