"""What the nspawn driver needs of the computer, and how it calls it: words, never a shell's line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from deployer.errors import MissingToolError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where these tools lie; an ordinary user's PATH often leaves out the folders of the administrator's."""

_PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "tc": "iproute2",
    "losetup": "mount",
    "unshare": "util-linux",
    "mkfs.ext4": "e2fsprogs",
}
_BUILD_S = 900.0


def lacking() -> str:
    """Why this computer cannot have such machines; "" where it can."""
    if sys.platform != "linux":
        return "only Linux has network namespaces and systemd-nspawn"
    if os.geteuid() != 0:
        return "namespaces, bridges and packet filters need root"
    if missing := missing_packages():
        return f"not installed: {', '.join(missing)}"
    return ""


def missing_packages() -> list[str]:
    """Debian's names of the packages whose commands are not there."""
    return sorted({package for tool, package in _PACKAGES.items() if shutil.which(tool, path=PATH) is None})


def require() -> None:
    """Raises MissingToolError with what to do where `lacking` says something."""
    if why := lacking():
        step = "fedspan sandbox start (the driver `process` needs neither root nor tools)"
        if sys.platform == "linux" and os.geteuid() != 0:
            step = "sudo fedspan sandbox start --driver nspawn, or the driver `process`, which needs no root"
        elif sys.platform == "linux":
            step = f"apt-get install {' '.join(missing_packages())}"
        raise MissingToolError("the nspawn driver cannot run here", why=why, next_step=step)


def environment() -> dict[str, str]:
    """For the tools: this process's environment with their folders, in the language that we read."""
    return {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}


def call(argv: Sequence[str], text: str = "", check: bool = True) -> str:
    """Runs a tool to its end; its standard output.

    Raises:
        OSError: it failed (with its words), or is not there.
    """
    done = subprocess.run(
        list(argv), input=text, capture_output=True, text=True, env=environment(), check=False, timeout=_BUILD_S
    )
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(f"{' '.join(argv[:6])}: {' / '.join(said[-3:]) or f'exit {done.returncode}'}")
    return done.stdout


def batch(lines: Sequence[str], namespace: str = "") -> None:
    """Runs several commands of `ip` in one go, in a named network namespace or in this process's.

    Raises:
        OSError: one failed; those after it were not run.
    """
    where = ["-n", namespace] if namespace else []
    call(["ip", *where, "-batch", "-"], "".join(f"{line}\n" for line in lines))
