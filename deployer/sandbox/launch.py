"""Starts the sandbox's daemon, detached from whoever asks for it, and waits until it says that it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import deployer
from deployer.errors import MissingToolError, SandboxError
from deployer.sandbox.leftovers import sweep
from deployer.sandbox.state import LOG, SandboxState, tail

START_S = 60.0
"""How long a start may take before it counts as failed (usually it takes half a second)."""
_LOG_BYTES = 4 * 1024 * 1024
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_DIR", "VIRTUAL_ENV")


def launch(home: Path, image: Path | None = None) -> SandboxState:
    """Starts the daemon, detached from this process, and waits until it says that it is ready.

    With `image`, the root file system of the nspawn driver, its machines are systems of their own.
    """
    _require_packages()
    if (home / LOG).exists() and (home / LOG).stat().st_size > _LOG_BYTES:
        os.replace(home / LOG, home / f"{LOG}.old")
    reader, writer = os.pipe()
    with open(home / LOG, "a") as log, open(reader) as answer:
        log.write(f"--- start {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        log.flush()
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "deployer.sandbox.daemon",
                    str(home),
                    str(writer),
                    *([str(image)] if image else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                env=_daemon_environment(home),
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        text, ended = _read_for(answer.fileno(), START_S)
    process.wait()  # the daemon has detached itself from the process that was started
    said: dict[str, Any] = {}
    for line in text.splitlines():
        said.update(json.loads(line))
    state = SandboxState.load(home)
    if "ready" in said and state is not None:
        return state
    if not ended and "pid" in said:
        with contextlib.suppress(ProcessLookupError):
            os.kill(said["pid"], signal.SIGKILL)
    sweep(home)
    why = said.get("error") or (tail(home / LOG) if ended else f"not ready after {START_S:.0f} s")
    raise SandboxError("the sandbox did not start", why=why, log=str(home / LOG))


def _read_for(descriptor: int, seconds: float) -> tuple[str, bool]:
    """What comes through a pipe until its other end closes, and whether it did within `seconds`."""
    data, deadline = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, 65536) if ready else b""
        if not chunk:
            return data.decode(), bool(ready)
        data += chunk


def _daemon_environment(home: Path) -> dict[str, str]:
    """The daemon's whole environment: no credentials, no HOME of the operator's, temporary files in its own folder."""
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "PYTHONPATH": str(Path(deployer.__file__).parent.parent),
        "HOME": str(home / "home"),
        "TMPDIR": str(home / "tmp"),
        "FEDSPAN_SANDBOX_HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "aws" / "credentials"),
        "AWS_CONFIG_FILE": str(home / "aws" / "config"),
    }


def _require_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("moto", "asyncssh", "grpc", "pulumi", "flask") if find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"the sandbox needs {', '.join(missing)}",
            why="fedspan was installed without the extra that holds it",
            next_step="pip install 'fedspan[sandbox]'",
        )
