"""A job's memory held to its limit by the kernel: control groups of Linux, version 2 where it has memory, else 1.

Only where we may make groups: below our own group when it was delegated to us (systemd's `Delegate=yes`, a container),
or as root. Elsewhere the keeper counts by itself (agent/keeper.py).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("fedspan.agent")

_AGENT = "fedspan-agent"  # where our own processes go, for a group that has groups of its own holds none (version 2)


@dataclass(frozen=True)
class Group:
    """One job's group, and the files that its keeper uses: to join, to end all at once, to see whom memory killed."""

    folder: Path
    version: int

    @property
    def join(self) -> list[str]:
        return [str(self.folder / "cgroup.procs")]

    @property
    def kill(self) -> list[str]:
        return [str(self.folder / "cgroup.kill")] if self.version == 2 else []

    @property
    def killed(self) -> list[str]:
        """Holds a line `oom_kill N`."""
        return [str(self.folder / ("memory.events" if self.version == 2 else "memory.oom_control"))]

    def remove(self) -> None:
        """After its processes have ended; the kernel may need a moment to notice."""
        for _ in range(50):
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)
            else:
                return


def make(state: Path, job: str, memory: int) -> Group | None:
    """A group whose processes get `memory` bytes together; None where we may make none."""
    found = _base()
    if found is None:
        return None
    base, version = found
    group = Group(base / _name(state, job), version)
    group.remove()  # of an earlier launch
    try:
        group.folder.mkdir(exist_ok=True)
        if version == 2:
            (group.folder / "memory.max").write_text(str(memory))
            for file, text in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                with contextlib.suppress(OSError):  # a kernel without swap has no such file
                    (group.folder / file).write_text(text)
        else:
            (group.folder / "memory.limit_in_bytes").write_text(str(memory))
            with contextlib.suppress(OSError):
                (group.folder / "memory.memsw.limit_in_bytes").write_text(str(memory))
    except OSError as error:
        log.warning("%s: no control group for its memory, the keeper counts: %s", job, error)
        group.remove()
        return None
    return group


def remove(state: Path, job: str) -> None:
    """The group of a job that is over."""
    found = _base()
    if found is not None:
        Group(found[0] / _name(state, job), found[1]).remove()


def _name(state: Path, job: str) -> str:
    return f"fedspan-{hashlib.blake2b(f'{state}'.encode(), digest_size=4).hexdigest()}-{job}"


@functools.lru_cache(maxsize=1)
def _base() -> tuple[Path, int] | None:
    """Where we may make groups with a limit on memory, and the version; found out once."""
    try:
        mounts, own = _mounts(), _own()
    except (OSError, ValueError):
        return None
    if "" in mounts:
        for place in _places(mounts[""], own.get("", "/")):
            if _opened(place):
                return place, 2
    if "memory" in mounts:
        for place in _places(mounts["memory"], own.get("memory", "/")):
            if _tried(place):
                return place, 1
    return None


def _mounts() -> dict[str, Path]:
    """Controller -> where its hierarchy is mounted; "" for version 2."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        path = Path(before.split()[4])
        if kind == "cgroup2":
            found.setdefault("", path)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, path)
    return found


def _own() -> dict[str, str]:
    """Controller -> our own group."""
    rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {name: path for _, names, path in rows for name in names.split(",")}


def _places(mount: Path, own: str) -> list[Path]:
    """Our own group where it is ours to divide, then the top of all as root."""
    mine = mount / own.strip("/")
    places = [mine] if mine.is_dir() and (own == "/" or _delegated(mine)) else []
    return [*places, mount] if os.geteuid() == 0 else places


def _delegated(folder: Path) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _opened(folder: Path) -> bool:
    """Version 2: groups below get the memory controller. Processes that stand in the way, all ours, move below too."""
    control = folder / "cgroup.subtree_control"
    try:
        if "memory" not in (folder / "cgroup.controllers").read_text().split():
            return False
        if "memory" not in control.read_text().split():
            try:
                control.write_text("+memory")
            except OSError:
                below = folder / _AGENT
                below.mkdir(exist_ok=True)
                for pid in (folder / "cgroup.procs").read_text().split():
                    (below / "cgroup.procs").write_text(pid)
                control.write_text("+memory")
    except OSError:
        return False
    return _tried(folder)


def _tried(folder: Path) -> bool:
    probe = folder / f"fedspan-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
