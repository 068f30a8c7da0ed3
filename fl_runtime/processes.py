"""Processes of jobs: started in a group of their own, identified beyond doubt, ended as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_runtime.names import STOP_S

_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH", "FEDSPAN_ROOT", "PYTHONPATH")
_PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "NCCL_")
_M_ARENA_MAX = -8
_PARENT, _STARTED, _ENV_END = 1, 19, 48  # in /proc/PID/stat, counted from its third field


@dataclass(frozen=True)
class ProcessId:
    """A process across restarts of whoever asks: a pid alone may have been given to another."""

    pid: int
    started: int  # clock ticks after boot, /proc/PID/stat field 22
    boot: str

    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started


def lean_allocator() -> None:
    """Two arenas for malloc, not one for each thread (glibc): threads that move chunks kept 60 MB each otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return what malloc holds and nobody uses (glibc): chunks of many transfers leave holes of tens of MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks after boot; None when there is none (or only its zombie)."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_STARTED])


def identify(pid: int) -> ProcessId | None:
    started = start_time(pid)
    return None if started is None else ProcessId(pid, started, boot_id())


def job_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a job's process sees of our environment: a list of what is let through, so that no credential leaks."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {**passed, "PYTHONUNBUFFERED": "1", **extra}


def start(argv: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process as leader of its own session; its output is appended to `log`, which outlives us."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )


def environment(pid: int) -> list[bytes]:
    """`NAME=VALUE`, each, as they were when a process began with its program; empty when there is none to be read.

    For an instant the kernel shows a process that becomes another program without environment and arguments. Whoever
    looks for a mark must not take it for one that bears none: it is looked at again, for a second at most.
    """
    process, end = Path(f"/proc/{pid}"), time.monotonic() + 1.0
    with contextlib.suppress(OSError):  # it is gone, a zombie, one of the kernel's, or not ours to look at
        while not (found := (process / "environ").read_bytes()) and time.monotonic() < end:
            os.readlink(process / "exe")
            if _stat(pid)[_ENV_END] != "0":
                found = (process / "environ").read_bytes()
                break
            time.sleep(0.001)
        return found.split(b"\0")[:-1]
    return []


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from its third field, the state, on (proc(5)). Raises OSError."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def marked(bears: Callable[[bytes], bool]) -> list[int]:
    """The processes of whose environment, as it was when they began with their program, an entry satisfies `bears`."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and any(map(bears, environment(int(name))))]


def end_group(pid: int, child: subprocess.Popen[bytes] | None = None, grace: float = STOP_S) -> None:
    """End a whole process group: SIGTERM, and SIGKILL to whatever is left after `grace` seconds."""
    _signal(pid, signal.SIGTERM)
    end = time.monotonic() + grace
    while time.monotonic() < end:
        if child is not None:
            child.poll()  # reap, else the zombie holds the group
        if not group_alive(pid):
            return
        time.sleep(0.02)
    _signal(pid, signal.SIGKILL)
    if child is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def group_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descends(pid: int, root: int) -> bool:
    """Whether a process is `root`, or one that it has started, or one that those have (0 = of another namespace)."""
    while pid > 1:
        if pid == root:
            return True
        try:
            pid = int(_stat(pid)[_PARENT])
        except (OSError, ValueError):
            return False
    return False
