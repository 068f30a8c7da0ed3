"""The passphrase that encrypts the CA's key at rest: from a file, the environment, the workspace, or a prompt."""

from __future__ import annotations

import getpass
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from startup_kits.errors import KitError
from startup_kits.workspace import write_private

FILE_VARIABLE = "FEDSPAN_PASSPHRASE_FILE"
VARIABLE = "FEDSPAN_PASSPHRASE"


@dataclass(frozen=True)
class PassphraseSource:
    """Where to look, in this order: `file`, the two variables, `stored` (the workspace's own), `ask`.

    Attributes:
        stored: `.fedspan/passphrase`. Where nothing else gives a passphrase and nobody can be asked, one is made
            there (0600), and `made` is called so that the user is told to back it up.
        ask: asks a person with the given prompt; None where there is no terminal.
    """

    stored: Path
    file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    ask: Callable[[str], str] | None = None
    made: Callable[[Path], None] = lambda path: None

    @classmethod
    def for_terminal(cls, stored: Path, file: Path | None = None) -> PassphraseSource:
        """The source for a person at a terminal, or for a script where there is none."""

        def told(path: Path) -> None:
            print(
                f"A new passphrase lies in {path} (0600). Back it up: without it no kit can be added or renewed.",
                file=sys.stderr,
            )

        return cls(stored, file, ask=getpass.getpass if sys.stdin.isatty() else None, made=told)

    def existing(self) -> bytes:
        """The passphrase of a CA that stands.

        Raises:
            KitError: none is given, or the named file can't be read.
        """
        if (given := self._given()) is not None:
            return given
        if self.stored.is_file():
            return _read(self.stored)
        if self.ask is not None and (answer := self.ask("Passphrase of the federation's CA: ")):
            return answer.encode()
        raise KitError(
            "the CA's passphrase is missing",
            why=f"no --passphrase-file, no {FILE_VARIABLE} or {VARIABLE}, no {self.stored}",
            next_step="fedspan provision --passphrase-file FILE",
        )

    def new(self) -> bytes:
        """The passphrase for a CA that is being made.

        Raises:
            KitError: the named file can't be read, or two answers differ.
        """
        if (given := self._given()) is not None:
            return given
        if self.stored.is_file():
            return _read(self.stored)
        if self.ask is not None and (answer := self.ask("New passphrase for the federation's CA (empty: make one): ")):
            if self.ask("Once more: ") != answer:
                raise KitError("the two passphrases differ", next_step="fedspan provision")
            return answer.encode()
        self.stored.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.stored, secrets.token_urlsafe(32).encode() + b"\n")
        self.made(self.stored)
        return _read(self.stored)

    def _given(self) -> bytes | None:
        if self.file is not None:
            return _read(self.file)
        if named := self.environ.get(FILE_VARIABLE):
            return _read(Path(named))
        return value.encode() if (value := self.environ.get(VARIABLE)) else None


def _read(path: Path) -> bytes:
    try:
        passphrase = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise KitError(
            f"the passphrase file {path} can't be read",
            why=error.strerror,
            next_step="fedspan provision --passphrase-file FILE",
        ) from None
    if not passphrase:
        raise KitError(f"the passphrase file {path} is empty", next_step="fedspan provision --passphrase-file FILE")
    return passphrase
