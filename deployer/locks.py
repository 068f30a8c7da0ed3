"""The engine's locks on a stack, as its file backend leaves them: whose they are, and whether that one still lives.

A killed engine leaves its lock. It is taken away only when it is certain that its owner is dead: this machine, and no
process of that number that is old enough to have written it. An engine that outlived its fedspan is waited for, since
it is saving what it made. Locks in other backends are not read: there notes of our own engines, of the same form, tell
as much of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from deployer.errors import BusyError
from deployer.ledger_rows import user


@dataclass(frozen=True)
class Lock:
    """One lock file: who made it, where, when (seconds since the epoch)."""

    path: Path
    pid: int
    hostname: str
    user: str
    made: float

    @property
    def owner(self) -> str:
        """For people."""
        return f"{self.user}@{self.hostname}, process {self.pid}"


def lock_folder(state_dir: Path, project: str, stack: str) -> Path:
    """Where the locks on one stack of a file backend lie."""
    return state_dir / ".pulumi" / "locks" / "organization" / project / stack


def note_lock(folder: Path, pid: int) -> Path:
    """Note that an engine of ours, process `pid`, holds the stack of this folder; the caller deletes it at its end."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = datetime.now(timezone.utc).isoformat()
    path = folder / f"{pid}.json"
    path.write_text(json.dumps({"pid": pid, "username": user(), "hostname": socket.gethostname(), "timestamp": made}))
    return path


def forget_locks(folder: Path) -> None:
    """Their engines are dead, and the stack is free."""
    for path in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def read_locks(state_dir: Path, project: str, stack: str) -> list[Lock]:
    """The locks on one stack of a file backend."""
    folder = lock_folder(state_dir, project, stack)
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            content = json.loads(path.read_text())
            made = seconds_of(str(content.get("timestamp", "")))
            found.append(
                Lock(path, int(content["pid"]), str(content["hostname"]), str(content.get("username", "")), made)
            )
        except (OSError, ValueError, KeyError, TypeError):
            # half written or just removed: whoever holds it is at work this very moment
            found.append(Lock(path, 0, "unknown", "unknown", time.time()))
    return [lock for lock in found if lock.path.exists()]


def seconds_of(text: str) -> float:
    """RFC 3339 with nanoseconds to seconds since the epoch; 0 where it can't be read."""
    head, _, rest = text.partition(".")
    zone = "+00:00" if text.endswith("Z") or not rest else rest.lstrip("0123456789") or "+00:00"
    zone = "+00:00" if zone == "Z" else zone
    try:
        return datetime.fromisoformat(head.removesuffix("Z") + ("" if "+" in head[10:] else zone)).timestamp()
    except ValueError:
        return 0.0


def started(pid: int) -> float | None:
    """When a process of this machine was started, in seconds since the epoch; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")
        )
    except (OSError, StopIteration, ValueError):
        return _exists(pid)
    if fields[0] in ("Z", "X"):
        return None
    return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _exists(pid: int) -> float | None:
    """Where there is no /proc: a process that can be signalled may have been there for ever."""
    if pid <= 0 or Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    return 0.0


def is_dead(lock: Lock, hostname: str, started_at: Callable[[int], float | None] = started) -> bool:
    """Whether a lock's owner is certainly dead.

    Certain means: the lock was made on this machine, and no process has its number, or the one that has it was
    started after the lock was made (a number that is used again; two seconds for the clocks' grain).
    """
    if lock.hostname != hostname or lock.pid <= 0:
        return False
    began = started_at(lock.pid)
    return began is None or (lock.made > 0 and began > lock.made + 2)


def wait_free(
    state_dir: Path, project: str, stack: str, limit: float, wait: Callable[[float], None], told: Callable[[str], None]
) -> bool:
    """Wait until no living process holds the stack; True when dead locks are left to be taken away.

    Raises:
        BusyError: somebody alive, or on another machine, holds it for longer than `limit` seconds.
    """
    end = time.monotonic() + limit
    said = False
    while True:
        locks = read_locks(state_dir, project, stack)
        if not locks:
            return False
        hostname = socket.gethostname()
        living = [lock for lock in locks if not is_dead(lock, hostname)]
        if not living:
            return True
        elsewhere = [lock for lock in living if lock.hostname not in (hostname, "unknown")]
        if elsewhere or time.monotonic() > end:
            raise BusyError(
                "the stack is locked",
                participant=stack,
                why=f"{living[0].owner} works on it",
                next_step="wait until it has ended; when it is certainly dead, delete " + str(living[0].path),
            )
        if not said:
            told(f"an earlier engine (process {living[0].pid}) is still saving; waiting for it")
            said = True
        wait(0.5)
