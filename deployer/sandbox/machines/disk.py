"""A machine's disk: the folder that stands for its root, the commands found there, the mounting of its volumes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from deployer.sandbox.machines.boot import STATE_MOUNT, BootFile

_FOLDERS = ("etc/ssh", "home", "opt", "run", "srv", "tmp", "usr/bin", "usr/local/bin", "var/lib", "var/log", "var/tmp")

# What a small server image has and a federation uses. Nothing here needs root or changes more than files; there is
# no sudo, no systemctl, no apt, no pkill, no ssh: the machine is a process on somebody's computer.
_COMMANDS = """
[ awk base64 basename bash bunzip2 bzip2 cat chmod chown cksum clear cmp comm cp cut dash date dd df diff dirname du
echo egrep env expand expr false fgrep file find flock fmt fold free getconf grep gunzip gzip head id install join
kill less link ln locale logname ls lscpu lsof md5sum mkdir mkfifo mktemp more mv nice nl nohup nproc od paste pgrep
printenv printf ps pwd readlink realpath rm rmdir sed seq setsid sh sha1sum sha256sum sha512sum sha224sum shred shuf
sleep sort split stat stdbuf stty sum sync tac tail tar tee test time timeout touch tr true truncate tsort tty uname
unexpand uniq unlink unxz uptime wc whoami which xargs xz yes zcat zstd
""".split()  # noqa: SIM905  # a list of this length reads better as text


def make_root(root: Path, users: Iterable[str]) -> None:
    """Makes or completes the folders and commands of a machine's root. Safe to repeat; tmp and run start empty."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "run"):
        for entry in (root / name).iterdir():
            remove(entry)
    for user in users:
        (root / "home" / user).mkdir(mode=0o750, exist_ok=True)
    for name in _COMMANDS:
        link = root / "usr/bin" / name
        if not link.is_symlink() and (found := shutil.which(name, path="/usr/bin:/bin:/usr/local/bin")):
            link.symlink_to(found)
    # The bare interpreter, as on a cloud's image: without the packages of the environment that runs the sandbox. A
    # script and not a link, so that an interpreter started by it knows where its library is.
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    python = root / "usr/bin/python3"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(interpreter)} "$@"\n')
        python.chmod(0o755)


def write_files(root: Path, files: Iterable[BootFile]) -> list[str]:
    """Writes what user-data wants written. Returns what went wrong, a line each; never leaves `root`."""
    problems = []
    for file in files:
        target = inside(root, root / file.path.lstrip("/"), (root,))
        if target is None:
            problems.append(f"write_files: {file.path}: leads out of the machine")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "ab" if file.append else "wb") as out:
                out.write(file.content)
            target.chmod(file.mode)
        except OSError as error:
            problems.append(f"write_files: {file.path}: {error.strerror}")
    return problems


def write_keys(root: Path, user: str, keys: Iterable[str]) -> None:
    """`authorized_keys` of an account, read at each login as sshd does."""
    folder = root / "home" / user / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "authorized_keys"
    path.write_text("".join(f"{key}\n" for key in keys))
    path.chmod(0o600)


def mount_state(root: Path, folder: Path | None) -> str | None:
    """Makes the volume's folder appear at the state's mount point, or disappear (None). Returns a line for the log.

    What lay under the mount point before stays hidden beneath it, as under a mount: it is set aside, and put back
    when the volume goes.
    """
    point = root / STATE_MOUNT.lstrip("/")
    hidden = point.with_name(f".{point.name}.beneath")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if point.is_symlink():
            if os.readlink(point) == str(folder):
                return None
            point.unlink()
        elif point.is_dir():
            if hidden.is_dir():
                remove(hidden)
            point.rename(hidden)
        point.symlink_to(folder)
        return f"fedspan-state: mounted {folder.name} at {STATE_MOUNT}"
    if point.is_symlink():
        point.unlink()
        if hidden.is_dir():
            hidden.rename(point)
        return f"fedspan-state: {STATE_MOUNT} unmounted"
    return None


def inside(root: Path, path: Path, allowed: Iterable[Path], follow: bool = True) -> Path | None:
    """`path` with its links resolved, or None if it leads out of all `allowed` folders.

    With `follow=False` the last component itself is not resolved: what is meant is the link, not its target.
    """
    real = Path(os.path.realpath(path)) if follow else Path(os.path.realpath(path.parent)) / path.name
    for folder in allowed:
        base = Path(os.path.realpath(folder))
        if real == base or base in real.parents:
            return real
    return None


def remove(path: Path) -> None:
    """Removes a file, link or tree, also where a folder was made unreadable. Raises OSError when something stays."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    shutil.rmtree(path, onerror=_retry_writable)


def _retry_writable(function: object, path: str, info: object) -> None:
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
