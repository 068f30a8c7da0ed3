"""A tree of files is made another user's, while processes of that user may be at work in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_DEEPEST = 100  # levels of folders that are given: each takes two descriptors while below it


def give(top: Path, uid: int, gid: int) -> None:
    """Make a folder and what lies in it somebody's.

    Raises:
        OSError: it is no folder, such as a link to one.
    """
    with _opened(top, _FOLDER) as folder:
        _give(folder, uid, gid)


@contextlib.contextmanager
def _opened(name: str | Path, flags: int, at: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


def _give(at: int, uid: int, gid: int, levels: int = _DEEPEST) -> None:
    """Make the tree under an open folder somebody's: links themselves and not what they point to, and no file that has
    another name elsewhere, for an earlier launch may have made them.

    Something of it may still live and swap names meanwhile: what is opened is what is looked at and given.
    """
    os.fchown(at, uid, gid)
    for name in os.listdir(at):
        with contextlib.suppress(FileNotFoundError), _opened(name, os.O_PATH, at) as entry:
            status = os.fstat(entry)
            if not stat.S_ISDIR(status.st_mode):
                if status.st_nlink == 1:
                    os.chown(f"/proc/self/fd/{entry}", uid, gid)
            elif levels:
                with _opened(".", _FOLDER, entry) as folder:
                    _give(folder, uid, gid, levels - 1)
