"""Where a federation's files lie: the spec, the kits, and the private folder `.fedspan/`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from startup_kits.errors import SpecError

SPEC_NAMES = ("federation.yml", "federation.yaml", "federation.json")


@dataclass(frozen=True)
class Workspace:
    """The folder of one federation.

    `kits/NAME/` holds the kits; `.fedspan/` (0700, git-ignored) the CA, SSH keys, stacks, ledger and passphrase.
    """

    spec_path: Path

    @classmethod
    def find(cls, file: Path | str | None = None) -> Workspace:
        """The workspace of a spec file, of a folder with one, or of the current folder or one above it.

        Raises:
            SpecError: there is none.
        """
        if file is None:
            here = Path.cwd()
            folders = [here, *here.parents]
        elif Path(file).is_dir():
            folders = [Path(file)]
        else:
            if not Path(file).is_file():
                raise SpecError(f"there is no {file}", next_step="fedspan init writes an example to start from")
            return cls(Path(file).resolve())
        for folder in folders:
            for name in SPEC_NAMES:
                if (folder / name).is_file():
                    return cls((folder / name).resolve())
        raise SpecError(
            f"there is no federation.yml in {folders[0]}" + ("" if len(folders) == 1 else " or above it"),
            next_step="fedspan init writes an example; fedspan -f PATH uses one that lies elsewhere",
        )

    @property
    def root(self) -> Path:
        return self.spec_path.parent

    @property
    def kits_dir(self) -> Path:
        return self.root / "kits"

    @property
    def state_dir(self) -> Path:
        return self.root / ".fedspan"

    @property
    def ca_dir(self) -> Path:
        return self.state_dir / "ca"

    @property
    def ssh_dir(self) -> Path:
        return self.state_dir / "ssh"

    @property
    def stacks_dir(self) -> Path:
        return self.state_dir / "stacks"

    @property
    def ledger_path(self) -> Path:
        return self.state_dir / "ledger.db"

    @property
    def passphrase_path(self) -> Path:
        return self.state_dir / "passphrase"

    def ensure(self) -> None:
        """Makes the private folders (0700), and keeps them and the kits' keys out of git."""
        for folder in (self.state_dir, self.ca_dir, self.ssh_dir, self.stacks_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        ignore = self.state_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        self.kits_dir.mkdir(mode=0o700, exist_ok=True)
        kits_ignore = self.kits_dir / ".gitignore"
        if not kits_ignore.exists():
            kits_ignore.write_text("# Kits hold private keys: hand them over, don't commit them.\n*\n")


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a whole file or nothing: to a new file beside it that only its owner may read, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
