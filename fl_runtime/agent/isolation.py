"""What keeps a job's code away from the site's kit, policy and journal, and what this machine offers for it.

As root, jobs run under a user that nobody else has (a number derived from the state folder and the job; `user` in
local/resources.yml names another), in a private view of the file system where the kernel allows one. Without root,
and as root too, Landlock lists what they may open. Where there is neither, only code that the site has named runs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime.agent import landlock, namespaces
from fl_runtime.errors import KitError, RefusedError
from fl_runtime.job.spec import JobSpec
from fl_runtime.kit import Kit

_FIRST_USER, _USERS = 1_900_000_000, 200_000_000  # above everything that systems and containers give out


@dataclass(frozen=True)
class Means:
    """What the kernel (or the container) lets this process do."""

    root: bool
    landlock: int  # version, 0 = none
    mounts: bool  # a private view of the file system
    network: bool  # a network namespace

    def __str__(self) -> str:
        parts = []
        if self.root:
            parts.append("users of their own")
        if self.landlock:
            parts.append(f"Landlock {self.landlock}")
        if self.mounts:
            parts.append("a private /tmp")
        if self.network:
            parts.append("the network can be kept away")
        return ", ".join(parts) or "none"


@functools.lru_cache(maxsize=1)
def means() -> Means:
    """Found out once, in a process of its own (a few hundredths of a second)."""
    offered: dict[str, bool] = {}
    if sys.platform.startswith("linux"):
        argv = [sys.executable, "-I", "-S", namespaces.__file__]
        done = subprocess.run(argv, capture_output=True, timeout=20, check=False, env={"PATH": os.defpath})
        offered = json.loads(done.stdout or b"{}")
    return Means(os.geteuid() == 0, landlock.abi(), offered.get("mounts", False), offered.get("network", False))


@dataclass(frozen=True)
class Isolation:
    """How one job is kept apart."""

    user: tuple[int, int] | None  # uid, gid; None: the agent's
    exclusive: bool  # nobody but this job has that user
    landlock: bool
    mounts: bool
    cut: bool  # no network

    @property
    def any(self) -> bool:
        return self.landlock or self.user is not None

    def __str__(self) -> str:
        parts = [f"user {self.user[0]}"] if self.user else []
        parts += ["Landlock"] * self.landlock + ["private /tmp"] * self.mounts + ["no network"] * self.cut
        return ", ".join(parts) or "nothing"


def choose(kit: Kit, state: Path, job: str, spec: JobSpec, offered: Means | None = None) -> Isolation:
    """How to run the job here.

    Raises:
        RefusedError: the site's policy or the job ask for more than the machine offers.
    """
    offered, policy = offered or means(), kit.policy()

    def refuse(why: str, next_step: str | None = None) -> RefusedError:
        return RefusedError("The job is refused", participant=kit.name, why=why, next_step=next_step)

    cut = "none" in (spec.network, policy.network)
    if cut and not offered.network:
        asks = "the job" if spec.network == "none" else "local/policy.yml"
        raise refuse(
            f"{asks} wants `network: none`, which this machine can't give (no network namespaces without root)",
            "as root: sysctl kernel.unprivileged_userns_clone=1, or start the site as root",
        )
    user = _user(kit, state, job, offered)
    isolation = Isolation(
        user=user[:2] if user else None,
        exclusive=bool(user and user[2]),
        landlock=offered.landlock >= 2,  # version 1 would refuse every rename from one folder to another
        mounts=offered.mounts and (offered.landlock >= 2 or user is not None),
        cut=cut,
    )
    if isolation.any or policy.isolation == "best":
        return isolation
    if policy.isolation == "required":
        raise refuse("local/policy.yml wants isolation, and this machine has none (no Landlock, and not root)")
    if spec.entry not in policy.scripts:
        raise refuse(
            f"this machine can't isolate jobs (no Landlock, and not root), so only listed code runs, and {spec.entry} "
            f"is not on the list ({', '.join(name for name in policy.scripts if name != 'any') or 'empty'})",
            "in local/policy.yml: `scripts: [NAME]` for code that you know, or `isolation: best`",
        )
    return isolation


def _user(kit: Kit, state: Path, job: str, offered: Means) -> tuple[int, int, bool] | None:
    """uid, gid, and whether nobody else has it."""
    if not offered.root:
        return None
    named = kit.resources().get("user")
    if named == "root":
        return None
    if named is not None:
        try:
            entry = pwd.getpwnam(str(named))
        except KeyError:
            raise KitError(
                f"local/resources.yml: there is no user {named!r}",
                participant=kit.name,
                next_step=f"useradd -r {named}",
            ) from None
        return entry.pw_uid, entry.pw_gid, False
    number = int.from_bytes(hashlib.blake2b(f"{state}\0{job}".encode(), digest_size=8).digest(), "big")
    uid = _FIRST_USER + number % _USERS
    if offered.mounts:
        return uid, uid, True
    for folder in (state, state / "jobs"):  # passable; what lies there is still closed
        folder.mkdir(exist_ok=True, mode=0o700)
        folder.chmod(folder.stat().st_mode | 0o001)
    closed = namespaces.closed_above(
        [str(state / "jobs/x"), os.path.realpath(sys.executable), sys.prefix + "/x"], uid, uid
    )
    return None if closed else (uid, uid, True)


def harmless(path: str, kit: Kit, state: Path) -> bool:
    """Whether a folder may be shown to a job: it neither is nor holds the kit or the state folder."""
    real = os.path.realpath(path)
    return not any(
        secret == real or secret.startswith(real.rstrip("/") + "/")
        for secret in (str(kit.path), os.path.realpath(state))
    )


def folders(resources: Mapping[str, Any], kind: str) -> list[str]:
    """`folders: {read: [...], write: [...]}` of local/resources.yml."""
    named = resources.get("folders")
    paths = named.get(kind) if isinstance(named, Mapping) else None
    return [str(path) for path in paths or []]
