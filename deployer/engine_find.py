"""Where the `pulumi` command is: named by the user, on PATH, in ~/.pulumi, or in a folder of fedspan's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deployer.errors import MissingToolError

ENGINE_VERSION = "3.260.0"
"""The version that fedspan installs: the one that the stand-in's records were made with (docs/engine.md)."""

ROOT_VARIABLE = "FEDSPAN_PULUMI_ROOT"
"""Names the command, the folder that holds it, or the folder above `bin/pulumi`; `--pulumi PATH` sets it."""


def own_engine_root() -> Path:
    """Where fedspan installs a `pulumi` of its own, after asking: one folder for each version."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "fedspan" / "pulumi" / ENGINE_VERSION


def command_in(root: Path) -> Path:
    """The command in a folder: `bin/pulumi`, or `pulumi` itself as the release's archive has it."""
    flat = root / "pulumi"
    return flat if _runs(flat) and not _runs(root / "bin" / "pulumi") else root / "bin" / "pulumi"


def root_of(path: Path) -> Path:
    """The folder for a path that a user gave: the command itself, its folder, or the folder above `bin`.

    Raises:
        MissingToolError: there is no such command.
    """
    path = path.expanduser().absolute()
    root = path
    if path.is_file():
        root = path.parent.parent if path.parent.name == "bin" else path.parent
    if path.is_file() and path.name != "pulumi":
        raise MissingToolError(
            f"{path} is not the `pulumi` command",
            why="an archive is installed first",
            next_step=f"fedspan engine install --pulumi {path}",
        )
    if not _runs(command_in(root)):
        raise MissingToolError(
            f"there is no `pulumi` command in {path}",
            why=f"{ROOT_VARIABLE} or --pulumi names it",
            next_step="name the command itself, or the folder above bin/pulumi",
        )
    return root


def find_engine(environ: Mapping[str, str]) -> Path | None:
    """The folder of the command that will be used, or None.

    Raises:
        MissingToolError: FEDSPAN_PULUMI_ROOT names something else.
    """
    if given := environ.get(ROOT_VARIABLE):
        return root_of(Path(given))
    candidates = [Path.home() / ".pulumi", own_engine_root()]
    if on_path := shutil.which("pulumi", path=environ.get("PATH")):
        found = Path(on_path)
        candidates.insert(0, found.parent.parent if found.parent.name == "bin" else found.parent)
    return next((root for root in candidates if _runs(command_in(root))), None)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
