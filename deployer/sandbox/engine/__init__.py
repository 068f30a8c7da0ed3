"""The sandbox's stand-in for the `pulumi` command.

It speaks the protocol by which the Automation API drives Pulumi's engine, and calls providers by Pulumi's provider
protocol, so that the code above it can't tell the difference: tests/sandbox/engine holds it against records of what
the real engine did.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

_LONGEST_SHEBANG = 127  # bytes that Linux reads of a script's first line


def root(folder: Path | None = None) -> Path:
    """The folder whose `bin/pulumi` is this engine, made when it is not there (or is of another interpreter).

    `folder` is where to make it; by default it is beside the sandbox's state.
    """
    if folder is None:
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        home = os.environ.get("FEDSPAN_SANDBOX_HOME") or str(Path(state) / "fedspan" / "sandbox")
        folder = Path(home) / "engine"
    command = folder / "bin" / "pulumi"
    script = _script(sys.executable, Path(__file__).resolve().parents[3])
    if not command.exists() or command.read_text() != script or not os.access(command, os.X_OK):
        command.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=command.parent, prefix=".pulumi-")
        with os.fdopen(handle, "w") as file:
            file.write(script)
        os.chmod(temporary, 0o755)  # noqa: S103 - a command that anybody may run
        os.replace(temporary, command)
    return folder


def _script(python: str, packages: Path) -> str:
    """The command's text. The interpreter stands in the shebang line where that is long enough, else a shell starts
    it.
    """
    body = f"import sys\nsys.path[0] = {str(packages)!r}\nfrom deployer.sandbox.engine.cli import entry\nentry()\n"
    line = f"#!{python}"
    if len(line.encode()) <= _LONGEST_SHEBANG and " " not in python:
        return f"{line}\n{body}"
    # The second line is a command for the shell and a text for Python.
    return f"#!/bin/sh\n''''exec {shlex.quote(python)} \"$0\" \"$@\" # '''\n{body}"
