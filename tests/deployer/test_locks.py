"""An engine's lock is taken away only when its owner is certainly dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deployer.errors import BusyError
from deployer.locks import Lock, is_dead, read_locks, started, wait_free


def lock_file(folder: Path, pid: int, hostname: str | None = None, made: float | None = None) -> Path:
    locks = folder / ".pulumi" / "locks" / "organization" / "fedspan-digits" / "site-1"
    locks.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromtimestamp(made or time.time(), timezone.utc).isoformat().replace("+00:00", "123Z")
    path = locks / "aaaa.json"
    content = {"pid": pid, "username": "ana", "hostname": hostname or socket.gethostname(), "timestamp": stamp}
    path.write_text(json.dumps(content))
    return path


def free(folder: Path, limit: float = 0.0) -> bool:
    return wait_free(folder, "fedspan-digits", "site-1", limit, time.sleep, lambda text: None)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_no_lock_is_free(tmp_path: Path) -> None:
    assert free(tmp_path) is False


def test_a_dead_owners_lock_may_be_taken_away(tmp_path: Path) -> None:
    lock_file(tmp_path, dead_pid())
    assert free(tmp_path) is True


def test_a_living_owner_is_waited_for_and_then_respected(tmp_path: Path) -> None:
    lock_file(tmp_path, os.getpid())
    with pytest.raises(BusyError, match=f"process {os.getpid()} works on it"):
        free(tmp_path, 0.1)


def test_another_machines_lock_is_never_taken_away(tmp_path: Path) -> None:
    lock_file(tmp_path, dead_pid(), hostname="elsewhere")
    with pytest.raises(BusyError, match="ana@elsewhere"):
        free(tmp_path, 30)


def test_a_number_that_is_used_again_is_not_the_owner() -> None:
    lock = Lock(Path("x"), 4711, "here", "ana", made=1000.0)
    assert is_dead(lock, "here", lambda pid: 2000.0)
    assert not is_dead(lock, "here", lambda pid: 900.0)
    assert not is_dead(lock, "there", lambda pid: None)


def test_the_start_of_a_process_is_known() -> None:
    began = started(os.getpid())
    assert began is not None
    assert began <= time.time() + 1
    assert started(dead_pid()) is None


def test_a_lock_that_cannot_be_read_belongs_to_somebody_alive(tmp_path: Path) -> None:
    lock_file(tmp_path, 1).write_text("{")
    assert [lock.pid for lock in read_locks(tmp_path, "fedspan-digits", "site-1")] == [0]
    with pytest.raises(BusyError):
        free(tmp_path, 0.0)
