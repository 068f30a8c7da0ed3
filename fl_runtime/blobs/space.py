"""How much disk blobs may take: the owner's quota, and what the disk has. Asked before the first byte is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fl_runtime.blobs.pool import Pool
from fl_runtime.errors import DiskFullError, KitError, QuotaError
from fl_runtime.job.resources import parse_bytes, show_bytes
from fl_runtime.kit import Kit

QUOTA = "FEDSPAN_DISK_QUOTA"
RESERVE = 64 * 1024 * 1024  # left for databases and logs: they must be able to say that the disk is full
EXHAUSTED = 1024 * 1024  # bytes free, under which whatever writes may fail


def disk_quota(kit: Kit) -> int | None:
    """Bytes that blobs may take on this machine: `FEDSPAN_DISK_QUOTA`, else `disk_quota` of local/resources.yml.

    Raises:
        KitError: it is no size.
    """
    given = os.environ.get(QUOTA) or kit.resources().get("disk_quota")
    if given is None:
        return None
    try:
        return parse_bytes(given)
    except ValueError as error:
        raise KitError(
            "The disk quota makes no sense",
            participant=kit.name,
            why=str(error),
            next_step="write `disk_quota: 200GB` into the kit's local/resources.yml, or leave it out",
        ) from None


class Space:
    """The disk under some folders of files, with a pool whose files may be dropped."""

    def __init__(self, folders: Iterable[Path], pool: Pool, quota: Callable[[], int | None]) -> None:
        self._folders = tuple(folders)
        self._pool = pool
        self._quota = quota

    def used(self) -> int:
        """Bytes that files take (or were promised); the pool is not counted, it gives way."""
        total = 0
        for folder in self._folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:  # it went meanwhile
                        continue
        return total

    def free(self) -> int:
        """Bytes that may still be written: what the disk has and the pool could give back, within the quota."""
        found = os.statvfs(self._folders[0])
        free = found.f_bavail * found.f_frsize + self._pool.size() - RESERVE
        quota = self._quota()
        return max(0, free if quota is None else min(free, quota - self.used()))

    def exhausted(self) -> bool:
        """Not even a line of a log has room for certain."""
        found = os.statvfs(self._folders[0])
        return found.f_bavail * found.f_frsize < EXHAUSTED

    def check(self, size: int) -> None:
        """Is there room for so many bytes more?

        Raises:
            QuotaError: not within the quota.
            DiskFullError: not on the disk, even without the pool.
        """
        self.check_quota(size)
        found = os.statvfs(self._folders[0])
        have = found.f_bavail * found.f_frsize
        if have + self._pool.size() < size + RESERVE:
            raise self._full(size)

    def check_quota(self, size: int) -> None:
        """Does the owner allow so many bytes more, whatever the disk has?

        Raises:
            QuotaError: no.
        """
        quota = self._quota()
        if quota is not None:
            used = self.used()
            if used + size > quota:
                raise QuotaError(
                    "The disk quota is exceeded",
                    why=f"{show_bytes(size)} more would make {show_bytes(used + size)}, and {show_bytes(quota)} are"
                    f" allowed under {self._folders[0].parent}",
                    next_step=f"raise disk_quota in the kit's local/resources.yml (or {QUOTA}), or delete old jobs",
                )

    def allocate(self, fd: int, size: int) -> None:
        """Give a file its blocks now, so that writing it can't run out of them. The pool gives way.

        Raises:
            DiskFullError: there are not enough.
        """
        if os.fstat(fd).st_blocks * 512 < size:
            self._allocate(fd, size)
        quota = self._quota()
        if quota is not None:
            self._pool.shrink(quota - self.used())

    def _allocate(self, fd: int, size: int) -> None:
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return  # this file system can't; writing will tell
            self._pool.shrink(0)
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError:
                raise self._full(size) from None

    def _full(self, size: int) -> DiskFullError:
        found = os.statvfs(self._folders[0])
        return DiskFullError(
            "The disk is full",
            why=f"{show_bytes(size)} are needed under {self._folders[0].parent}, and"
            f" {show_bytes(found.f_bavail * found.f_frsize)} are free ({show_bytes(RESERVE)} of them are kept)",
            next_step=f"free disk space: df -h {self._folders[0].parent}",
        )
