"""The machine's end of a push: receives and sends folders and files on its standard streams.

Its text and that of `deployer.remote.tree` are sent to the machine's Python, which has no package of ours yet.

Each message is a frame: 8 bytes big-endian length, then JSON. `receive` and `merge`:

    -> the manifest             <- {"state": "same"} or {"state": "send", "need": [indexes into its sorted paths]}
    -> the needed files' bytes, one after the other in that order (their sizes are in the manifest)
                                <- {"state": "done"}

`send`: <- {"state": "sending", "manifest": …}, then the bytes of its files in sorted order. What goes wrong is told by
{"state": "error", "why": …} in the place of any answer.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from typing import Any, BinaryIO

from deployer.remote.tree import (
    FSYNC_EACH,
    Manifest,
    Refused,
    Source,
    blocks,
    build,
    checked,
    file_hash,
    locked,
    own,
    recover,
    remove,
    scan,
    switch,
    sync_folder,
    take,
    tree_hash,
)


def receive(destination: str, keep: list[str], owner: str = "", durable: bool = True) -> None:
    """Replaces `destination` by the tree that standard input describes; see the module for the protocol."""
    source, answer = sys.stdin.buffer, sys.stdout.buffer
    manifest: Manifest = checked(json.loads(read_frame(source)))
    tree = tree_hash(manifest)
    parent = os.path.dirname(destination)
    os.makedirs(parent, exist_ok=True)
    have: Manifest = {}
    with locked(parent):
        recover(destination)
        if os.path.isdir(destination) and not os.path.islink(destination):
            try:
                have = scan(destination, keep)
            except Refused:  # someone put a link there: nothing of it is reused
                have = {}
            if have == manifest:
                write_frame(answer, {"state": "same"})
                return
        elif os.path.lexists(destination):
            raise Refused(f"{destination} exists and is not a folder")
        need = [path for path in sorted(manifest) if manifest[path][1] != -1 and have.get(path) != manifest[path]]
        order = {path: index for index, path in enumerate(sorted(manifest))}
        write_frame(answer, {"state": "send", "need": [order[path] for path in need]})
        new = f"{destination}.new-{tree[:16]}"
        try:
            build(source, manifest, need, destination, new, keep, durable)
            if scan(new, keep) != manifest:
                raise Refused("what arrived has another hash than what was sent")
            if owner:
                own(new, owner)
            switch(new, destination, tree)
        except BaseException:
            if os.path.lexists(new):
                remove(new)
            raise
    write_frame(answer, {"state": "done"})


def merge(destination: str, owner: str = "") -> None:
    """Puts a manifest's files into an existing folder, or at `destination` itself where the only path is "".

    Nothing else there is touched. Each file is whole, the old or the new one, at any moment.
    """
    source, answer = sys.stdin.buffer, sys.stdout.buffer
    manifest: Manifest = json.loads(read_frame(source))
    if list(manifest) != [""]:
        checked(manifest)
    paths = sorted(manifest)
    os.makedirs(destination if "" not in manifest else os.path.dirname(destination), exist_ok=True)
    need = [
        path for path in paths if manifest[path][1] != -1 and not same_file(place(destination, path), manifest[path])
    ]
    missing = [path for path in paths if manifest[path][1] == -1 and not os.path.isdir(place(destination, path))]
    if not need and not missing:
        write_frame(answer, {"state": "same"})
        return
    write_frame(answer, {"state": "send", "need": [paths.index(path) for path in need]})
    for path in missing:
        os.mkdir(place(destination, path), manifest[path][0])
        if owner:
            own(place(destination, path), owner)
    for path in need:
        mode, size, digest = manifest[path]
        final = place(destination, path)
        new = f"{final}.new-{os.getpid()}"
        try:
            take(source, size, new, mode, sync=len(need) <= FSYNC_EACH)
            if file_hash(new) != digest:
                raise Refused(f"{final}: what arrived has another hash than what was sent")
            if owner:
                own(new, owner)
            os.replace(new, final)
        except BaseException:
            if os.path.lexists(new):
                remove(new)
            raise
    if len(need) > FSYNC_EACH:
        os.sync()
    for folder in {os.path.dirname(place(destination, path)) for path in need}:
        sync_folder(folder)
    write_frame(answer, {"state": "done"})


def place(destination: str, path: str) -> str:
    """Where a manifest's path lies; "" is the destination itself."""
    return os.path.join(destination, path) if path else destination


def same_file(path: str, entry: list[Any]) -> bool:
    """Whether a regular file with this mode and content is there.

    Raises:
        Refused: a folder or something special stands in its place.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(info.st_mode):
        raise Refused(f"{path} exists and is not a file")
    return [stat.S_IMODE(info.st_mode) & 0o777, info.st_size] == entry[:2] and file_hash(path) == entry[2]


def send(path: str) -> None:
    """Writes a file or a folder to standard output: its manifest as a frame, then the files' bytes in its order."""
    if os.path.isfile(path):
        info = os.stat(path)
        manifest: Manifest = {"": [stat.S_IMODE(info.st_mode) & 0o777, info.st_size, file_hash(path)]}
    elif os.path.isdir(path):
        manifest = scan(path)
    else:
        raise Refused(f"{path} does not exist")
    write_frame(sys.stdout.buffer, {"state": "sending", "manifest": manifest})
    for name in sorted(manifest):
        if manifest[name][1] != -1:
            for block in blocks(os.path.join(path, name) if name else path, manifest[name][1]):
                sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def read_frame(source: Source) -> bytes:
    """One frame's payload."""
    head = source.read(8)
    if len(head) < 8:
        raise EOFError("the sender stopped")
    (size,) = struct.unpack(">Q", head)
    data = source.read(size)
    if len(data) < size:
        raise EOFError("the sender stopped")
    return data


def write_frame(target: BinaryIO, message: dict[str, Any]) -> None:
    """One JSON frame."""
    data = json.dumps(message).encode()
    target.write(struct.pack(">Q", len(data)) + data)
    target.flush()


def main(argv: list[str]) -> int:
    """`receive PATH KEEP OWNER DURABLE`, `merge PATH OWNER`, `send PATH`, `hash PATH KEEP`; KEEP is a JSON list."""
    os.umask(0o022)
    try:
        if argv[0] == "receive":
            receive(argv[1], json.loads(argv[2]), argv[3], bool(argv[4]))
        elif argv[0] == "merge":
            merge(argv[1], argv[2])
        elif argv[0] == "send":
            send(argv[1])
        else:
            tree = tree_hash(scan(argv[1], json.loads(argv[2]))) if os.path.isdir(argv[1]) else ""
            write_frame(sys.stdout.buffer, {"state": "hash", "hash": tree})
    except (Refused, OSError, EOFError, ValueError, LookupError) as error:
        write_frame(sys.stdout.buffer, {"state": "error", "why": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
