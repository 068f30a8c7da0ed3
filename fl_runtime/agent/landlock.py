"""The kernel keeps a process, and all that it starts, to the files that it was given (Linux's Landlock).

It needs no privilege and can't be undone. What is not listed can't be opened, written, made or removed, whoever owns
it; processes outside can't be traced, nor (version 6) signalled or reached by abstract sockets. Numbers are from the
kernel's uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULE_PATH_BENEATH = 1
_VERSION_FLAG = 1
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_FILE_CAPABILITIES = (0, 1, 3, 4)  # chown, override of permissions, owner's rights; never raw devices, tracing, mounts

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
_CHANGES = sum(1 << bit for bit in range(4, 13))  # remove and make entries of every sort
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_SCOPES = (1 << 0) | (1 << 1)  # abstract sockets, signals

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
EDIT = READ | WRITE_FILE | TRUNCATE  # files that are there
OWN = RUN | EDIT | _CHANGES | REFER
DEVICE = EDIT | IOCTL_DEV


def abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    version = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, int(version))


class Ruleset:
    """Made and filled first (paths are opened then), applied with `restrict`.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """

    def __init__(self) -> None:
        version = abi()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._rights = RUN | WRITE_FILE | _CHANGES | sum(right for since, right in _SINCE if version >= since)
        scoped = _SCOPES if version >= 6 else 0
        # struct landlock_ruleset_attr: handled_access_fs, handled_access_net (version 4), scoped (version 6).
        attributes = struct.pack("=QQQ", self._rights, 0, scoped)[: 24 if version >= 6 else 8]
        self._fd = self._libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "landlock_create_ruleset")

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """Allow what lies at and under `paths`; one that is not there is left out."""
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                granted = rights & self._rights
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    granted &= _OF_FILES
                # struct landlock_path_beneath_attr is packed: u64 allowed_access, s32 parent_fd.
                rule = struct.pack("=Qi", granted, fd)
                if self._libc.syscall(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, rule, ctypes.c_uint32(0)) < 0:
                    raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
            finally:
                os.close(fd)

    def restrict(self) -> None:
        """From now on, for this thread and what it starts. Sets no_new_privs too."""
        no_new_privileges()
        if self._libc.syscall(_RESTRICT_SELF, self._fd, ctypes.c_uint32(0)) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
        os.close(self._fd)


def no_new_privileges() -> None:
    """From now on no program that is started gains privileges (sudo, setuid)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def only_file_capabilities() -> None:
    """For a program that stays root: what it may do beyond the others is to read and write files that it can reach."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        if capability not in _FILE_CAPABILITIES:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused for numbers that the kernel does not have
