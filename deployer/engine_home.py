"""Where the stacks of one deployment live: folders, backend, passphrase. Imports no engine."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from startup_kits.workspace import write_private

BACKEND_VARIABLE = "FEDSPAN_BACKEND"


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
        return self.backend or os.environ.get(BACKEND_VARIABLE) or f"file://{self.state_dir}"

    @property
    def state_dir(self) -> Path:
        """The file backend's folder."""
        return self.folder / "state"

    @property
    def is_local(self) -> bool:
        """Whether the stacks lie in files of this machine."""
        return self.backend_url.startswith("file://")

    @property
    def passphrase_path(self) -> Path:
        """The file whose first line encrypts the stacks' secrets."""
        return self.folder / "passphrase"

    def ensure(self) -> bool:
        """Make the folders and the passphrase; True when the passphrase is new (the user must back it up)."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        if self.passphrase_path.is_file():
            return False
        write_private(self.passphrase_path, f"{secrets.token_urlsafe(32)}\n".encode())
        return True

    def work_dir(self, stack: str) -> Path:
        """The working folder of one stack."""
        return self.folder / "work" / stack
