"""A folder as one content hash, and its atomic replacement. Runs on both ends of a push.

The deployer imports this module; on a machine its text is fed to `python3 -` (see `deployer.push`), so it imports the
standard library only and needs Python 3.8.

A manifest maps each relative path ('/'-separated) to `[mode, size, sha256]`, a folder to `[mode, -1, ""]`. Its hash is
the SHA-256 over the sorted entries: paths, modes and contents, no times and no owners.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

BLOCK = 1 << 20
FSYNC_EACH = 256  # up to so many files each is fsynced; above, one sync() of everything is cheaper


Manifest = dict[str, list[Any]]


class Source(Protocol):
    """Whatever bytes are read from; fewer than asked for are fine, none are the end."""

    def read(self, size: int, /) -> bytes: ...


class Refused(Exception):
    """Something that a push does not do, in words for the user."""


def scan(root: str, keep: Collection[str] = ()) -> Manifest:
    """The manifest of a folder.

    Args:
        keep: relative paths, of files or folders, that are left out (and survive a replacement on the machine).

    Raises:
        Refused: a symbolic link, a device, a socket or a pipe, by its path; a name that is not UTF-8.
    """
    manifest: Manifest = {}
    skipped = set(keep)

    def walk(folder: str, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                path = prefix + entry.name
                if path in skipped:
                    continue
                try:
                    path.encode("utf-8")
                except UnicodeEncodeError:
                    raise Refused(f"the name {path!r} is not UTF-8") from None
                info = entry.stat(follow_symlinks=False)
                mode = stat.S_IMODE(info.st_mode) & 0o777
                if stat.S_ISDIR(info.st_mode):
                    manifest[path] = [mode, -1, ""]
                    walk(entry.path, path + "/")
                elif stat.S_ISREG(info.st_mode):
                    manifest[path] = [mode, info.st_size, file_hash(entry.path)]
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "neither a file nor a folder"
                    raise Refused(f"{entry.path} is {kind}")

    walk(root, "")
    return manifest


def file_hash(path: str) -> str:
    """SHA-256 of a file, hex."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return found.hexdigest()
            found.update(block)


def tree_hash(manifest: Manifest) -> str:
    """The one hash of a manifest, hex."""
    lines = [json.dumps([path, *manifest[path]], ensure_ascii=True) for path in sorted(manifest)]
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def checked(manifest: Manifest) -> Manifest:
    """The manifest, once no path in it can lead outside.

    Raises:
        Refused: an absolute path, `..`, an empty part, or a folder that is missing or a file.
    """
    for path in sorted(manifest):
        parts = path.split("/")
        if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise Refused(f"the path {path!r} leads outside")
        if len(parts) > 1 and manifest.get("/".join(parts[:-1]), [0, 0])[1] != -1:
            raise Refused(f"{path!r} lies in no folder of the list")
    return manifest


def switch(new: str, destination: str, tree: str) -> None:
    """Puts the folder `new` in `destination`'s place in one step; the previous one is removed afterwards.

    Linux exchanges two names atomically (renameat2, RENAME_EXCHANGE); where a file system cannot, two renames, the
    first undone if the second fails. `recover` mends what a crash between the two leaves.
    """
    aside = f"{destination}.old-{tree[:16]}"
    if not os.path.lexists(destination):
        os.rename(new, destination)
    elif exchange(new, destination):
        os.rename(new, aside)
    else:
        os.rename(destination, aside)
        try:
            os.rename(new, destination)
        except BaseException:
            os.rename(aside, destination)
            raise
    sync_folder(os.path.dirname(destination))
    if os.path.lexists(aside):
        remove(aside)


def exchange(one: str, other: str) -> bool:
    """Swaps two names atomically; False where kernel, C library or file system cannot."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_cwd, exchange_flag = -100, 2
    return bool(swap(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange_flag) == 0)


def remove(path: str) -> None:
    """Removes a file or a folder of any modes."""
    if os.path.isdir(path) and not os.path.islink(path):
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)
    else:
        os.unlink(path)


def recover(destination: str) -> None:
    """Undoes what an interrupted replacement left: half-received folders go, a folder set aside comes back."""
    parent, name = os.path.split(destination)
    for entry in sorted(os.listdir(parent)):
        path = os.path.join(parent, entry)
        if entry.startswith(f"{name}.old-"):
            if os.path.lexists(destination):
                remove(path)
            else:
                os.rename(path, destination)
        elif entry.startswith(f"{name}.new-"):
            remove(path)


def sync_folder(path: str) -> None:
    """Makes names in a folder durable, where the file system knows how."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """One replacement in a folder at a time; a killed one's lock is gone with it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def take(source: Source, size: int, path: str, mode: int, sync: bool) -> None:
    """Reads `size` bytes from a stream into a new file."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
        while size:
            block = source.read(min(BLOCK, size))
            if not block:
                raise EOFError("the sender stopped in the middle")
            file.write(block)
            size -= len(block)
        os.fchmod(file.fileno(), mode)
        if sync:
            os.fsync(file.fileno())


def build(
    source: Source,
    manifest: Manifest,
    need: list[str],
    destination: str,
    new: str,
    keep: Iterable[str],
    durable: bool = True,
) -> None:
    """Makes the new folder beside the old one: new files from the stream, unchanged ones linked from the old."""
    wanted = set(need)
    sync_each = durable and len(need) <= FSYNC_EACH
    os.mkdir(new, 0o700)
    folders = [path for path in sorted(manifest) if manifest[path][1] == -1]
    for path in folders:
        os.mkdir(os.path.join(new, path), 0o700)
    for path in need:
        mode, size, _ = manifest[path]
        take(source, size, os.path.join(new, path), mode, sync_each)
    for path in sorted(manifest):
        if manifest[path][1] != -1 and path not in wanted:
            os.link(os.path.join(destination, path), os.path.join(new, path), follow_symlinks=False)
    for path in keep:
        old = os.path.join(destination, path)
        if os.path.lexists(old) and os.path.isdir(os.path.dirname(os.path.join(new, path))):
            carry(old, os.path.join(new, path))
    for path in reversed(folders):
        if sync_each:
            sync_folder(os.path.join(new, path))
        os.chmod(os.path.join(new, path), manifest[path][0])
    os.chmod(new, 0o755)  # noqa: S103 - a folder of programs and kits: the key inside has its own 0600
    if sync_each:
        sync_folder(new)
    elif durable:
        os.sync()


def carry(old: str, new: str) -> None:
    """The same file or folder under a second name: files as hard links, so that the old folder stays whole."""
    if os.path.isdir(old) and not os.path.islink(old):
        os.mkdir(new, 0o700)
        for name in os.listdir(old):
            carry(os.path.join(old, name), os.path.join(new, name))
        shutil.copystat(old, new)
    elif os.path.isfile(old):
        os.link(old, new, follow_symlinks=False)


def own(path: str, owner: str) -> None:
    """Gives a file or a tree to a user."""
    shutil.chown(path, owner, owner)
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            shutil.chown(os.path.join(folder, name), owner, owner)


def blocks(path: str, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes of a file in pieces.

    Raises:
        Refused: it has become shorter; a longer one is cut, its hash then tells.
    """
    with open(path, "rb", buffering=0) as file:
        while size:
            block = file.read(min(BLOCK, size))
            if not block:
                raise Refused(f"{path} changed while it was being sent")
            size -= len(block)
            yield block
