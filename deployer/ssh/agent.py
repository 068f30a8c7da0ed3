"""Keys to log in with: those of the operator's SSH agent, and one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko


def candidates(path: Path, agent: bool, load: Callable[[Path], paramiko.PKey]) -> list[Any]:
    """The keys to try, in order: the agent's where it is asked for, then the file's.

    A missing or unusable file is no fault as long as the agent has a key.
    """
    found: list[Any] = list(paramiko.Agent().get_keys()) if agent else []
    if not found or path.is_file():
        try:
            found.append(load(path))
        except Exception:
            if not found:
                raise
    return found
