"""Namespaces of Linux: a private view of the file system, and no network. Without root by a user namespace.

Called in a process that has one thread and is about to start a job's program.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence

_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MS_RDONLY, _MS_REMOUNT, _MS_RELATIME, _ST_RELATIME = 1, 32, 1 << 21, 4096
_SAME_FLAGS = 2 | 4 | 8 | 1024 | 2048  # nosuid, nodev, noexec, noatime, nodiratime
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def enter(*, mounts: bool, network: bool, user: bool) -> None:
    """New namespaces: of mounts (changes stay here), of the network (loopback only), of users (without root).

    Raises:
        OSError: the kernel or the container does not let us.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = _NEWNS * mounts | _NEWNET * network | _NEWUSER * user
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            fd = os.open(f"/proc/self/{file}", os.O_WRONLY)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
    if mounts:
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    if network:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # struct ifreq: 16 bytes of name, then the flags
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def private_view(seen: Iterable[str], written: Iterable[str], tmp: str, uid: int, gid: int) -> None:
    """An empty /tmp (the folder `tmp`) and /dev/shm, and folders that `uid` can't pass through made passable.

    What it needs stays at its place: a folder that hides some of it is covered by an empty one, into which the needed
    paths are mounted again. Everything else below is gone for this process.
    """
    free = {os.path.realpath(path) for path in written}
    real = {path: os.path.realpath(path) for path in (*seen, *written) if os.path.exists(path)}
    wanted = sorted(set(real.values()))
    covers = {"/tmp"} | {closed for path in wanted if (closed := _closed(path, uid, gid))}  # noqa: S108 - covered, not used
    tops = [cover for cover in covers if not any(_beneath(cover, other) for other in covers if other != cover)]
    held = {
        path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in wanted if any(_beneath(path, top) for top in tops)
    }
    tmp_fd = os.open(tmp, os.O_PATH | os.O_CLOEXEC)
    if os.path.isdir("/dev/shm"):  # noqa: S108 - made private here
        _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")  # noqa: S108
    for top in tops:
        if top == "/tmp":  # noqa: S108
            _bind(tmp_fd, top)
        else:
            _mount("tmpfs", top, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    mounted: dict[str, bool] = {}
    for path, fd in held.items():  # sorted: a folder comes before what lies in it
        above = max((other for other in mounted if _beneath(path, other)), key=len, default="")
        if above and mounted[above] == (path in free):
            continue
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.makedirs(path, 0o755, exist_ok=True)
        elif not os.path.lexists(path):  # it is there where its folder is mounted already
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        _bind(fd, path)
        if path not in free:
            _lock(path)
        mounted[path] = path in free
    for path, target in real.items():
        if not os.path.lexists(path):  # a link in a folder that is covered now
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.symlink(target, path)
    for fd in (*held.values(), tmp_fd):
        os.close(fd)


def closed_above(paths: Sequence[str], uid: int, gid: int) -> str | None:
    """The first folder through which that user can't pass on the way to one of the paths."""
    return next((closed for path in paths if (closed := _closed(os.path.realpath(path), uid, gid))), None)


def _closed(path: str, uid: int, gid: int) -> str | None:
    """The topmost folder above `path` that the user can't pass through."""
    parts = path.split("/")[1:-1]
    for count in range(len(parts) + 1):
        folder = "/" + "/".join(parts[:count])
        status = os.stat(folder)
        bit = 0o100 if status.st_uid == uid else 0o010 if status.st_gid == gid else 0o001
        if not status.st_mode & bit:
            return folder
    return None


def _beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bind(fd: int, target: str) -> None:
    _mount(f"/proc/self/fd/{fd}", target, None, _MS_BIND | _MS_REC)


def _lock(path: str) -> None:
    """Make a mount read-only; its other settings may not be changed by everybody."""
    flags = os.statvfs(path).f_flag
    kept = flags & _SAME_FLAGS | (_MS_RELATIME if flags & _ST_RELATIME else 0)
    _mount(None, path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    def text(value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    if _libc.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data)) != 0:
        raise OSError(ctypes.get_errno(), "mount", target)


def _tried(**wanted: bool) -> bool:
    """Whether it works here, found out by a child process."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            enter(mounts=wanted["mounts"], network=wanted["network"], user=os.geteuid() != 0)
            if wanted["mounts"]:
                _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k")  # noqa: S108 - in a namespace of its own
            code = 0
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":  # what the machine offers, for the agent (which has threads and must not fork)
    print(json.dumps({"mounts": _tried(mounts=True, network=False), "network": _tried(mounts=False, network=True)}))
