"""`fedspan cp`: which side is where, and where a copy ends up. Paths with a trailing '/' are folders to copy into."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deployer import push
from deployer.errors import UsageError
from deployer.push import Pushed
from deployer.service import Service
from deployer.ssh.machine import Machine

_REMOTE = re.compile(r"([a-z][a-z0-9-]{0,30}[a-z0-9]):(.*)", re.DOTALL)


@dataclass(frozen=True)
class Side:
    """One side of a copy; `participant` is None here."""

    participant: str | None
    path: str


def parse_side(text: str) -> Side:
    """`site-1:/srv/data` or a path here (`./site-1:x` is a path).

    Raises:
        UsageError: an empty path.
    """
    match = _REMOTE.fullmatch(text)
    side = Side(match[1], match[2]) if match else Side(None, text)
    if not side.path:
        raise UsageError(f"{text!r} names no path", next_step="fedspan cp FOLDER site-1:/srv/data/digits")
    return side


def remote_path(machine: Machine, path: str) -> str:
    """A path on the machine: absolute ones under its root, others and `~/…` in the login's home."""
    facts = machine.facts()
    if path.startswith("/"):
        return facts.path(path)
    inside = path.removeprefix("~/") if path != "~" else "."
    return str(PurePosixPath(facts.home, inside)) + ("/" if path.endswith("/") else "")


def send(machine: Machine, local: str, remote: str) -> Pushed:
    """Copies a file or a folder there: to `remote`, or into it where that ends in '/' (and, for a file, is a folder).

    A folder that is not there yet appears whole; into one that is there the files are put one by one, and whatever
    else it holds stays. Below the login's home the files are the login's. Elsewhere they belong to the runtime where it
    has a user of its own: data has to be readable for it, and for nobody else.

    Raises:
        UsageError: nothing lies here, or a symbolic link.
        MachineError, UnreachableError: as for `deployer.push.put_tree`.
    """
    source = Path(local)
    if not source.exists():
        raise UsageError(f"{local} does not exist here", next_step="fedspan cp FOLDER site-1:/srv/data/digits")
    service = Service(machine)
    target = remote_path(machine, remote)
    facts = machine.facts()
    at_home = target.startswith(facts.home + "/")
    if service.systemd and not at_home:
        service.ensure_user()
    owner = "" if at_home else service.owner
    if source.is_symlink() or not (source.is_dir() or source.is_file()):
        raise UsageError(f"{local} is neither a file nor a folder", next_step="name the file or folder itself")
    exists = _is_folder(machine, target.rstrip("/"))
    if target.endswith("/") or (exists and source.is_file()):
        target = f"{target.rstrip('/')}/{Path(os.path.abspath(source)).name}"
        exists = source.is_dir() and _is_folder(machine, target)
    if source.is_dir() and not exists:
        return machine.put_tree(source, target, privileged=not at_home, owner=owner)
    prefix = () if at_home else facts.prefix
    return push.merge_tree(machine, source, target, python=facts.python, prefix=prefix, owner=owner)


def receive(machine: Machine, remote: str, local: str) -> Pushed:
    """Copies a file or a folder from there to `local`, or into it where that is a folder or ends in '/'.

    Raises:
        MachineError: no such path there, or a symbolic link in it.
        UnreachableError: the connection broke.
    """
    source = remote_path(machine, remote).rstrip("/")
    target = Path(local)
    if local.endswith(("/", "/.")) or local in (".", "..") or target.is_dir():
        target = target / PurePosixPath(source).name
    return machine.get(source, Path(os.path.abspath(target)), privileged=True)


def _is_folder(machine: Machine, path: str) -> bool:
    return machine.run_privileged(["test", "-d", path], check=False, timeout_s=30).status == 0
