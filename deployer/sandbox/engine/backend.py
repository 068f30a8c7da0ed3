"""The file backend: checkpoints, locks, history and backups in a folder, laid out as Pulumi's own file backend does.

    .pulumi/meta.yaml                               version: 1
    .pulumi/stacks/PROJECT/STACK.json               the checkpoint (and .bak, the one before)
    .pulumi/locks/organization/PROJECT/STACK/ID.json    held while something changes the stack
    .pulumi/history/PROJECT/STACK/STACK-NANOSECONDS.{history,checkpoint}.json
    .pulumi/backups/PROJECT/STACK/STACK.NANOSECONDS.json

A checkpoint is written beside the old one and renamed: a kill at any moment leaves the old or the new one whole.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from .problems import CommandFailed
from .state import now

_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,100}$")


class Backend:
    """The stacks of one project in one folder."""

    def __init__(self, url: str, project: str) -> None:
        if not url.startswith("file://"):
            raise CommandFailed(f"the sandbox's engine keeps state in files only (file://…), not in {url}")
        self.url = url
        self.folder = Path(url.removeprefix("file://").split("?", 1)[0]).expanduser().absolute()
        if not self.folder.is_dir():
            raise CommandFailed(f"unable to open bucket {url}: stat {self.folder}: no such file or directory")
        self.root = self.folder / ".pulumi"
        self.project = project

    # -- names and places ------------------------------------------------------------------------------------------
    def name(self, stack: str) -> str:
        """The short name of a stack, which may be given as PROJECT/STACK or organization/PROJECT/STACK."""
        *above, name = stack.split("/")
        if above and above[-1] != self.project:
            raise CommandFailed(f"provided project name {above[-1]!r} doesn't match Pulumi.yaml")
        if len(above) == 2 and above[0] != "organization":
            raise CommandFailed(f"organization name must be 'organization', not {above[0]!r}")
        if not _NAME.match(name):
            raise CommandFailed(
                "a stack name may only contain alphanumeric, hyphens, underscores, or periods: "
                f"invalid character in {name!r}"
            )
        return name

    def checkpoint_path(self, stack: str) -> Path:
        return self.root / "stacks" / self.project / f"{stack}.json"

    def _history(self, stack: str) -> Path:
        return self.root / "history" / self.project / stack

    def _locks(self, stack: str) -> Path:
        return self.root / "locks" / "organization" / self.project / stack

    # -- stacks ----------------------------------------------------------------------------------------------------
    def exists(self, stack: str) -> bool:
        return self.checkpoint_path(stack).exists()

    def stacks(self) -> list[str]:
        return sorted(p.stem for p in (self.root / "stacks" / self.project).glob("*.json"))

    def create(self, stack: str, latest: dict[str, Any]) -> None:
        if self.exists(stack):
            raise CommandFailed(f"stack 'organization/{self.project}/{stack}' already exists")
        meta = self.root / "meta.yaml"
        if not meta.exists():
            _write(meta, "version: 1\n")
        self.save(stack, latest)

    def load(self, stack: str) -> dict[str, Any]:
        """The `latest` of the stack's checkpoint; an error when it can't be read, of which nothing is touched."""
        text = self.checkpoint_path(stack).read_text()
        try:
            return dict(json.loads(text)["checkpoint"].get("latest") or {})
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
            why = "unexpected end of JSON input" if cut else f"{error.msg} at offset {error.pos}"
            raise CommandFailed(f"failed to load checkpoint: place 1: {why}") from None
        except (KeyError, AttributeError, TypeError):
            raise CommandFailed(
                f"failed to load checkpoint: {self.checkpoint_path(stack)} is not a checkpoint"
            ) from None

    def save(self, stack: str, latest: dict[str, Any]) -> None:
        path = self.checkpoint_path(stack)
        checkpoint = {"stack": f"organization/{self.project}/{stack}", "latest": latest}
        _write(path, json.dumps({"version": 3, "checkpoint": checkpoint}, ensure_ascii=False), keep=True)

    def remove(self, stack: str) -> None:
        path = self.checkpoint_path(stack)
        for gone in (path, path.with_name(path.name + ".bak")):
            gone.unlink(missing_ok=True)
        shutil.rmtree(self._history(stack), ignore_errors=True)

    def rename(self, old: str, new: str) -> None:
        if self.exists(new):
            raise CommandFailed(f"stack 'organization/{self.project}/{new}' already exists")
        self.remove_files_to(old, new)

    def remove_files_to(self, old: str, new: str) -> None:
        path = self.checkpoint_path(old)
        path.with_name(path.name + ".bak").unlink(missing_ok=True)
        if self._history(old).exists():
            self._history(new).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._history(old), self._history(new))
            for entry in self._history(new).iterdir():
                entry.rename(entry.with_name(entry.name.replace(f"{old}-", f"{new}-", 1)))
        os.replace(path, self.checkpoint_path(new))

    # -- locks -----------------------------------------------------------------------------------------------------
    def lock(self, stack: str) -> Path:
        """Takes the stack's lock, or says who holds it. Both see each other: each writes first and looks afterwards."""
        self._refuse_if_locked(stack, None)
        mine = self._locks(stack) / f"{uuid.uuid4()}.json"
        owner = {"pid": os.getpid(), "username": _user(), "hostname": socket.gethostname(), "timestamp": now()}
        _write(mine, json.dumps(owner))
        try:
            self._refuse_if_locked(stack, mine)
        except CommandFailed:
            mine.unlink(missing_ok=True)
            raise
        return mine

    def locks(self, stack: str) -> list[Path]:
        return sorted(self._locks(stack).glob("[!.]*.json"))

    def _refuse_if_locked(self, stack: str, mine: Path | None) -> None:
        others = [p for p in self.locks(stack) if p != mine]
        lines = []
        for path in others:
            with contextlib.suppress(OSError, ValueError):  # released, or being written, between listing and reading
                held = json.loads(path.read_text())
                lines.append(
                    f"  file://{path}?no_tmp_dir=true: created by {held['username']}@{held['hostname']} "
                    f"(pid {held['pid']}) at {held['timestamp']}"
                )
        if lines:
            raise CommandFailed(
                f"the stack is currently locked by {len(lines)} lock(s). Either wait for the other process(es) "
                "to end or delete the lock file with `pulumi cancel`.\n" + "\n".join(lines)
            )

    # -- history ---------------------------------------------------------------------------------------------------
    def add_history(self, stack: str, entry: dict[str, Any]) -> None:
        """Records an update that ended, with the checkpoint it left, and a backup."""
        stamp = time.time_ns()
        base = self._history(stack) / f"{stack}-{stamp}"
        checkpoint = self.checkpoint_path(stack)
        if checkpoint.exists():
            backup = self.root / "backups" / self.project / stack / f"{stack}.{stamp}.json"
            for copy in (base.with_name(base.name + ".checkpoint.json"), backup):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(checkpoint, copy)
        _write(base.with_name(base.name + ".history.json"), json.dumps(entry, indent=4))

    def history(self, stack: str) -> list[dict[str, Any]]:
        """The updates of the stack, the newest first."""
        paths = sorted(self._history(stack).glob(f"{stack}-*.history.json"), reverse=True)
        return [json.loads(p.read_text()) for p in paths]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in the password database, as in a container
        return str(os.getuid())


def _write(path: Path, text: str, *, keep: bool = False) -> None:
    """Writes beside and renames; `keep` keeps what was there as .bak."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    if keep:
        backup = path.with_name(path.name + ".bak")
        backup.unlink(missing_ok=True)
        if path.exists():
            os.link(path, backup)
        else:
            shutil.copyfile(temporary, backup)
    os.replace(temporary, path)


def whoami() -> str:
    return _user()
