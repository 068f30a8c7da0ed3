"""Where the stacks of one deployment live: folders, backend, passphrase. Imports no engine."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import CloudError
from startup_kits.workspace import write_private

BACKEND_VARIABLE = "FEDSPAN_BACKEND"

GIVE_UP = "fedspan reap --lost-stacks deletes what they made (it asks)"
"""What a lead types for stacks that nobody can read any more."""


@dataclass(frozen=True)
class EngineHome:
    """Where the stacks of one deployment live.

    Attributes:
        folder: `.fedspan/stacks`.
        project: the Pulumi project, `fedspan-<federation>`.
        backend: a Pulumi backend's URL; None for files in `folder`. FEDSPAN_BACKEND stands in for None.
    """

    folder: Path
    project: str
    backend: str | None = None

    @property
    def backend_url(self) -> str:
        """The backend's URL."""
        return self.backend or os.environ.get(BACKEND_VARIABLE) or self.own_url

    @property
    def own_url(self) -> str:
        """The URL of the backend that is used where none is named."""
        return f"file://{self.folder / 'state'}"

    @property
    def state_dir(self) -> Path:
        """The file backend's folder (our own even while another kind of backend is used)."""
        url = self.backend_url
        return Path(url.removeprefix("file://")).expanduser() if url.startswith("file://") else self.folder / "state"

    @property
    def lock_dir(self) -> Path:
        """Below it lie the locks: a file backend's own, or else the notes of our own engines."""
        return self.state_dir if self.is_local else self.folder / "engines"

    @property
    def is_local(self) -> bool:
        """Whether the stacks lie in files of this machine."""
        return self.backend_url.startswith("file://")

    def has_stacks(self) -> bool:
        """Whether stacks were made that are encrypted with the passphrase; each leaves a working folder here."""
        return any((self.folder / "work").glob("*/Pulumi.*.yaml"))

    @property
    def passphrase_path(self) -> Path:
        """The file whose first line encrypts the stacks' secrets."""
        return self.folder / "passphrase"

    def ensure(self) -> bool:
        """Make the folders and the passphrase; True when the passphrase is new (the user must back it up).

        Raises:
            CloudError: stacks are there, and the passphrase that encrypts their secrets is not.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.passphrase_path.is_file():
            return False
        if self.has_stacks():
            raise lost_passphrase(self.passphrase_path)
        write_private(self.passphrase_path, f"{secrets.token_urlsafe(32)}\n".encode())
        return True

    def forget(self) -> None:
        """Throw this project's stacks away, as far as they lie on this machine; the passphrase stays."""
        for name in ("state", "work", "engines"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if self.is_local:
            for name in ("stacks", "locks/organization", "history", "backups"):
                shutil.rmtree(self.state_dir / ".pulumi" / name / self.project, ignore_errors=True)

    def work_dir(self, stack: str) -> Path:
        """The working folder of one stack."""
        return self.folder / "work" / stack


def lost_passphrase(path: Path) -> CloudError:
    """The error for stacks whose passphrase is gone: what it means, and both ways out."""
    return CloudError(
        "the passphrase of the stacks is lost",
        why=f"{path} is missing, and the stacks' secrets can't be read without it, so no engine can change them",
        next_step=f"put your backup of it back (0600). Without one: {GIVE_UP}, then fedspan up",
    )
