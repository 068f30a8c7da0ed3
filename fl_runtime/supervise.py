"""Keeping one command running where no service manager does: restarts with back-off, a pid file, a rotated log.

In the state folder: `supervisor.json` (who supervises what), `runtime.log` and `runtime.log.1` to `.3`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fl_runtime.durable import write_whole
from fl_runtime.errors import BusyError, FlError, StorageError
from fl_runtime.processes import ProcessId, end_group, identify

FILE = "supervisor.json"
LOG = "runtime.log"
LOG_BYTES = 10 * 1024 * 1024
LOG_KEPT = 3
BACKOFF_S = (0.5, 30.0)  # doubled at each failure, back to the first after a minute of work
_STEADY_S = 60.0
_NOT_AGAIN = (2, 3, 4, 15)  # usage, spec, kit, busy: starting again would say the same


def supervise(state: Path, command: Sequence[str], *, foreground: bool = False) -> int:
    """Start the command and keep it; returns at once (the supervisor lives in the background) unless `foreground`.

    Raises:
        BusyError: a supervisor works there already.
        StorageError: the state folder has no room to note it.
    """
    if not command:
        raise FlError("supervise needs a command", next_step="python -m fl_runtime supervise --state DIR -- COMMAND")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = state.resolve()
    present = supervisor(state)
    if present is not None:
        raise BusyError(
            "It is supervised already",
            why=f"process {present.pid} does, with {state}",
            next_step=f"python -m fl_runtime stop --state {state}",
        )
    if foreground:
        return _Supervisor(state, command, echo=True).run()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        code = 1
        try:
            code = _Supervisor(state, command, echo=False, ready=writer).run()
        finally:
            os._exit(code)
    os.close(writer)
    os.wait()
    with os.fdopen(reader) as pipe:
        why = pipe.read()  # until the supervisor has written its file
    if why:
        raise _unnoted(state, why)
    return 0


def _unnoted(state: Path, why: str) -> StorageError:
    return StorageError(
        "Nothing is started, as it can't be noted who supervises it",
        why=why,
        next_step=f"df -h {state}, and free disk space",
    )


def stop(state: Path, timeout: float = 20.0) -> int:
    """Stop the supervisor and its command, or whatever serves with this state folder. 0 also when nothing runs."""
    target = supervisor(state)
    if target is None:
        pid = _lock_holder(state)
        target = identify(pid) if pid else None
    if target is None:
        (state / FILE).unlink(missing_ok=True)  # of one that was killed, or of the time before a reboot
        print("nothing runs")
        return 0
    os.kill(target.pid, signal.SIGTERM)
    end = time.monotonic() + timeout
    while target.alive():
        if time.monotonic() > end:
            end_group(target.pid, grace=0.5)
            break
        time.sleep(0.05)
    if supervisor(state) is None:
        (state / FILE).unlink(missing_ok=True)  # a supervisor that had to be killed has left it
    print(f"stopped process {target.pid}")
    return 0


def supervisor(state: Path) -> ProcessId | None:
    """The living supervisor of this state folder."""
    try:
        document = json.loads((state / FILE).read_text())
        found = ProcessId(int(document["pid"]), int(document["started"]), str(document["boot"]))
    except (OSError, ValueError, KeyError):
        return None
    return found if found.alive() else None


def _lock_holder(state: Path) -> int | None:
    """The pid that `serve` wrote into its lock, if somebody holds that lock."""
    import fcntl

    try:
        fd = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(fd, 32, 0).decode() or 0) or None
    else:
        return None
    finally:
        os.close(fd)


class _Supervisor:
    def __init__(self, state: Path, command: Sequence[str], *, echo: bool, ready: int | None = None) -> None:
        self._state = state
        self._command = list(command)
        self._echo = echo
        self._ready = ready
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lost = 0  # bytes for the log that it had no room for

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        own = identify(os.getpid())
        assert own is not None
        path = self._state / FILE
        document = {"pid": own.pid, "started": own.started, "boot": own.boot, "command": self._command}
        try:
            write_whole(path, json.dumps(document).encode())
        except OSError as error:
            if self._ready is None:
                raise _unnoted(self._state, str(error)) from None
            os.write(self._ready, str(error).encode())
            return StorageError.exit_code
        if self._ready is not None:
            os.close(self._ready)
        try:
            return self._loop()
        finally:
            path.unlink(missing_ok=True)

    def _on_signal(self, *_: object) -> None:
        self._stopping.set()
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()

    def _loop(self) -> int:
        delay, code = BACKOFF_S[0], 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = self._once()
            if self._stopping.is_set() or code == 0 or code in _NOT_AGAIN:
                break
            delay = BACKOFF_S[0] if time.monotonic() - begun > _STEADY_S else min(delay * 2, BACKOFF_S[1])
            self._write(f"supervise: the process ended with code {code}; started again in {delay:.1f} s\n".encode())
            self._stopping.wait(delay)
        return 0 if self._stopping.is_set() else code

    def _once(self) -> int:
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._write(f"supervise: {self._command[0]} can't be started: {error}\n".encode())
            return 127
        self._child = child
        if self._stopping.is_set():
            child.terminate()
        assert child.stdout is not None
        while piece := os.read(child.stdout.fileno(), 65536):
            self._write(piece)
        child.stdout.close()
        code = child.wait()
        end_group(child.pid, grace=2.0)
        return code

    def _write(self, data: bytes) -> None:
        """To the log and, if wanted, the terminal. What finds no room is lost, and the log says so when there is some:
        ending for it would leave the process without a supervisor."""
        try:
            missing = f"supervise: up to {self._lost} bytes are missing here, there was no room\n" if self._lost else ""
            self._log(missing.encode() + data)
            self._lost = 0
        except OSError:
            self._lost += len(data)
        if self._echo:
            with contextlib.suppress(OSError):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()

    def _log(self, data: bytes) -> None:
        path = self._state / LOG
        if path.exists() and path.stat().st_size + len(data) > LOG_BYTES:
            for number in range(LOG_KEPT, 1, -1):
                older = self._state / f"{LOG}.{number - 1}"
                if older.exists():
                    older.replace(self._state / f"{LOG}.{number}")
            path.replace(self._state / f"{LOG}.1")
        with open(path, "ab") as file:
            file.write(data)
