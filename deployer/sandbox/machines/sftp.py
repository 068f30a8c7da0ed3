"""SFTP that sees a machine's folder as the machine's root.

"/opt/x" is `$FEDSPAN_ROOT/opt/x`; a path that already starts with the machine's root means itself, so that one spelling
serves commands and files. A link that leads out of the machine leads nowhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from deployer.sandbox.machines.boot import STATE_MOUNT
from deployer.sandbox.machines.disk import inside


class MachineSftp(asyncssh.SFTPServer):
    """The SFTP server of one login."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: Path, volumes: Path, home: Path) -> None:
        super().__init__(channel)
        self._root, self._home = Path(os.path.realpath(root)), home
        self._volumes = Path(os.path.realpath(volumes))

    def _allowed(self) -> tuple[Path, ...]:
        """The folders that make up the machine: its root and, where one is mounted, its volume."""
        point = self._root / STATE_MOUNT.lstrip("/")
        volume = Path(os.path.realpath(point))
        return (self._root, volume) if point.is_symlink() and volume.parent == self._volumes else (self._root,)

    def _local(self, path: bytes, follow: bool = False) -> bytes:
        text = os.fsdecode(path)
        root = str(self._root)
        if not text.startswith("/"):
            text = f"{self._home}/{text}"
        elif not any(text == str(folder) or text.startswith(f"{folder}/") for folder in self._allowed()):
            while text.startswith(("/../", "/./", "//")):
                text = text[text.index("/", 1) :]  # as in any root folder, ".." of the root is the root
            text = root if text in ("/", "/..", "/.") else f"{root}{text}"
        # Not os.path.normpath before this: "link/.." means the parent of the link's target.
        found = inside(self._root, Path(text), self._allowed(), follow)
        if found is None:
            raise asyncssh.SFTPPermissionDenied(f"{os.fsdecode(path)}: outside of this machine")
        return os.fsencode(found)

    def map_path(self, path: bytes) -> bytes:
        return self._local(path)

    def reverse_map_path(self, path: bytes) -> bytes:
        return path

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        return super().open(self._local(path, follow=True), pflags, attrs)

    def open56(self, path: bytes, desired_access: int, flags: int, attrs: asyncssh.SFTPAttrs) -> object:
        return super().open56(self._local(path, follow=True), desired_access, flags, attrs)

    def stat(self, path: bytes) -> object:  # type: ignore[override]  # the base's type is private
        return super().stat(self._local(path, follow=True))

    def setstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> object:  # type: ignore[override]  # as above
        return super().setstat(self._local(path, follow=True), attrs)

    def realpath(self, path: bytes) -> bytes:
        return self._local(path, follow=True)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._local(path))

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        link = Path(os.fsdecode(self._local(newpath)))
        target = os.fsdecode(oldpath)
        if target.startswith("/"):
            target = os.fsdecode(self._local(oldpath))
        elif inside(self._root, link.parent / target, self._allowed()) is None:
            raise asyncssh.SFTPPermissionDenied(f"{target}: outside of this machine")
        os.symlink(target, link)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        async for name in super().scandir(self._local(path, follow=True)):
            yield name
