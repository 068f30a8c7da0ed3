"""The machine's end of an installation: makes a virtual environment from a folder of wheels, or checks one.

`torch` makes another one, for job scripts: torch from a package index that this machine asks, numpy from the wheels.

Its text is given to the machine's Python by `-c`: standard library only.

Nothing is fsynced on the way: pip would do so for each of some seventy small files, which takes longer than everything
else on a busy disk. Instead the marker, written last, names the boot that it was written in. In another boot, when the
machine may have lost power before its disk had everything, the environment counts only if each file still has the hash
that the wheels' own RECORDs say.
"""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARKER = ".fedspan-installed"
DURABLE = "durable"
"""In a marker: everything was synced before it was written, so that it counts in any boot."""

# Run by the new environment's Python. pip is unpacked first: from within its wheel each module is compiled twice.
_PIP = """\
import os, runpy, sys, sysconfig, zipfile
wheel = sys.argv.pop(1)
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(sysconfig.get_path("purelib"))
sys.path.insert(0, sysconfig.get_path("purelib"))
os.fsync = lambda handle: None
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_OPTIONS = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--no-input"]
_OPTIONS += ["--disable-pip-version-check", "--no-warn-script-location", "--root-user-action", "ignore"]
_INDEX_OPTIONS = ["--retries", "2", "--progress-bar", "off", "--only-binary", ":all:", *_OPTIONS[-6:]]


def install(environment: Path, wheels: Path) -> None:
    """Makes the environment anew. An interrupted one has no marker, and is made again from the start."""
    if environment.exists():
        shutil.rmtree(environment)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    found = sorted(str(path) for path in wheels.glob("*.whl"))
    pip = next(path for path in found if os.path.basename(path).startswith("pip-"))
    others = [path for path in found if path != pip]
    python = str(environment / "bin" / "python")
    subprocess.run([python, "-I", "-B", "-c", _PIP, pip, "install", *_OPTIONS, *others], check=True)
    mark(environment)


def install_torch(environment: Path, wheels: Path, request: Mapping[str, Any]) -> None:
    """Makes an environment with torch and numpy, anew; one at a time on a machine, the second finds it made.

    Args:
        request: `index`, `version`; `variables` about proxies and certificates, as the login has them.
    """
    with open(environment.parent / ".torch.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if check(environment):
            return
        if environment.exists():
            shutil.rmtree(environment)
        venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
        (pip,), (numpy,) = (sorted(wheels.glob(f"{name}-*.whl")) for name in ("pip", "numpy"))
        scratch = environment / "tmp"  # /tmp may be memory, and torch has gigabytes
        scratch.mkdir()
        argv = [str(environment / "bin" / "python"), "-I", "-c", _PIP, str(pip), "install", *_INDEX_OPTIONS]
        argv += ["--index-url", request["index"], f"torch=={request['version']}", str(numpy)]
        subprocess.run(argv, check=True, env={**os.environ, **request["variables"], "TMPDIR": str(scratch)})
        shutil.rmtree(scratch)
        os.sync()
        mark(environment, DURABLE)


def check(environment: Path) -> bool:
    """Whether the environment is there and whole."""
    try:
        boot = (environment / MARKER).read_text()
    except OSError:
        return False
    if boot in (boot_id(), DURABLE):
        return True
    if not all(record_holds(record) for record in sorted(environment.glob("lib/python3*/site-packages/*/RECORD"))):
        return False
    mark(environment)
    return True


def record_holds(record: Path) -> bool:
    """Whether all files that a RECORD names with their hash have it."""
    with record.open(newline="", encoding="utf-8") as file:
        for name, digest, *_ in csv.reader(file):
            if not digest.startswith("sha256="):
                continue
            try:
                content = (record.parent.parent / name).read_bytes()
            except OSError:
                return False
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            if found != digest.partition("=")[2]:
                return False
    return True


def mark(environment: Path, text: str = "") -> None:
    """Writes the marker: the boot, or `DURABLE`."""
    new = environment / (MARKER + ".new")
    new.write_text(text or boot_id())
    os.replace(new, environment / MARKER)


def boot_id() -> str:
    """Different after each boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def main(argv: list[str]) -> int:
    """`install ENVIRONMENT WHEELS` and `torch ENVIRONMENT WHEELS` (pip's status; the latter reads its request, JSON,
    from standard input), `check ENVIRONMENT` (status 3 where it is not whole).
    """
    os.umask(0o022)
    if argv[0] == "check":
        return 0 if check(Path(argv[1])) else 3
    try:
        if argv[0] == "torch":
            install_torch(Path(argv[1]), Path(argv[2]), json.load(sys.stdin))
        else:
            install(Path(argv[1]), Path(argv[2]))
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
