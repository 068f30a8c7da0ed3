"""One command at a time changes a deployment. The lock dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployer.errors import BusyError


@contextmanager
def exclusive(state_dir: Path, doing: str) -> Iterator[None]:
    """Hold the deployment's lock.

    Raises:
        BusyError: another fedspan holds it; the message says which, and what it does.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
            raise BusyError(
                "another command works on this deployment", why=holder, next_step="wait for it, then try again"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"fedspan {doing}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
