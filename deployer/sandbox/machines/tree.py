"""Process trees: who descends from whom, and how to end all of them, also those that became daemons.

Linux: a machine's process is a *subreaper*, so that a grandchild whose parent has gone is its child again and can
never get out of sight. Elsewhere only what `ps` shows as descendants is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set

from fl_runtime import processes

_PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform.startswith("linux")


def become_subreaper() -> bool:
    """Orphans among this process's descendants become its children. False where the system has no such thing."""
    return LINUX and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def start_time(pid: int) -> str | None:
    """When a living process started, in the system's own unit; None when there is none, or only a zombie.

    A process id alone may be anybody's by now: the pair (pid, start time) is one process and no other.
    """
    if not LINUX:
        result = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, _, started = result.stdout.strip().partition(" ")
        return started.strip() if started and not state.startswith("Z") else None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def alive(pid: int, started: str | None) -> bool:
    """Whether the process `pid` that started at `started` lives."""
    now = start_time(pid)
    return now is not None and (started is None or now == started)


def _table() -> Iterator[tuple[int, int, bool]]:
    """(pid, parent, zombie) of every process that can be seen."""
    if LINUX:
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                except OSError:
                    continue
                yield int(name), int(fields[1]), fields[0] in (b"Z", b"X")
        return
    result = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
    for line in result.stdout.splitlines():
        pid, parent, state = line.split(None, 2)
        yield int(pid), int(parent), state.startswith("Z")


def descendants(ancestor: int) -> dict[int, bool]:
    """pid -> whether it is only a zombie, for all that descend from `ancestor`."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for pid, parent, zombie in _table():
        children.setdefault(parent, []).append((pid, zombie))
    found: dict[int, bool] = {}
    todo = [ancestor]
    while todo:
        for pid, zombie in children.get(todo.pop(), ()):
            if pid not in found:
                found[pid] = zombie
                todo.append(pid)
    return found


def adopted(known: Set[int]) -> list[int]:
    """Living children of this process, not `known`, that belong to another session: orphans that it has inherited.

    What this process starts for itself stays in its own session, and what it starts as a machine is known.
    """
    own = os.getsid(0)
    found = []
    for pid, parent, zombie in _table():
        if parent == os.getpid() and not zombie and pid not in known:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) != own:
                    found.append(pid)
    return found


def zombies(parent: int) -> list[int]:
    """The ended children of `parent` that nobody has reaped."""
    return [pid for pid, its_parent, zombie in _table() if zombie and its_parent == parent]


def send(pids: Set[int] | list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_descendants(grace: float, keep: Set[int] = frozenset()) -> int:
    """Ends all descendants of this process: asks (SIGTERM), waits `grace` seconds at most, then kills.

    Blocks; reaps what it ends. Those in `keep`, and what descends from them, stay. Returns how many there were.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while True:
        spared = set(keep)
        for pid in keep:
            spared |= set(descendants(pid))
        ours = {pid: zombie for pid, zombie in descendants(os.getpid()).items() if pid not in spared}
        for pid, zombie in ours.items():
            if zombie:
                # A zombie that is not our own child is its parent's to reap: that parent is about to go as well.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        living = {pid for pid, zombie in ours.items() if not zombie}
        seen |= living
        if not living:
            return len(seen)
        if grace > 0 and time.monotonic() < deadline:
            send(living - asked, signal.SIGTERM)
            asked |= living
            time.sleep(0.02)
        else:
            send(living, signal.SIGKILL)
            time.sleep(0.005)


def marked(mark: bytes, exact: bool = False) -> list[int]:
    """Living processes whose environment, at their start, had an entry that starts with `mark` (or equals it)."""
    if not LINUX:
        return []
    found = processes.marked(lambda entry: entry == mark if exact else entry.startswith(mark))
    return [pid for pid in found if pid != os.getpid() and start_time(pid) is not None]


def pause_until_gone(pids: list[int], seconds: float = 2.0) -> None:
    """Waits, for `seconds` at most, until killed processes are gone; reaps those that are this process's."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(start_time(pid) is not None for pid in pids):
        time.sleep(0.005)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_strays(mark: bytes, exact: bool = False, orphans: Callable[[], list[int]] = list) -> int:
    """Kills what a machine left behind when its process was killed: what bears its mark, and `orphans`.

    Returns how many there were.
    """
    count = 0
    while strays := sorted({*marked(mark, exact), *orphans()}):
        count += len(strays)
        for pid in strays:
            send([pid, *descendants(pid)], signal.SIGKILL)
        pause_until_gone(strays)
    return count
