"""Lets the kernel refuse a process, and all that it starts, to write outside some folders (Linux's Landlock).

Needs no privilege. Where the kernel has it not (before 5.19, or switched off), `confine` says so and changes nothing.
Numbers from the kernel's uapi/linux/landlock.h.
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
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_FOLDER_CHANGES = sum(1 << bit for bit in range(4, 13))  # remove and make entries of every sort
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1


def abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    version = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, int(version))


def confine(writable: Iterable[str | os.PathLike[str]]) -> bool:
    """From now on this thread and what it starts may change files only beneath `writable`, and signal only its own.

    It also loses the way to more privilege (sudo, setuid programs). Reading stays as it was. False where the kernel
    can't do it. Call it before other threads are started. Raises OSError when a folder can't be opened.
    """
    version = abi()
    if version < 2:  # version 1 would refuse every rename from one folder to another
        return False
    rights = _WRITE_FILE | _FOLDER_CHANGES | _REFER | (_TRUNCATE if version >= 3 else 0)
    scoped = (_SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL) if version >= 6 else 0
    libc = ctypes.CDLL(None, use_errno=True)
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net (version 4), scoped (version 6).
    attributes = struct.pack("=QQQ", rights, 0, scoped)[: 24 if version >= 6 else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path in writable:
            folder = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
            try:
                allowed = rights
                if not stat.S_ISDIR(os.fstat(folder).st_mode):
                    allowed &= _WRITE_FILE | _TRUNCATE
                # struct landlock_path_beneath_attr is packed: u64 allowed_access, s32 parent_fd.
                rule = struct.pack("=Qi", allowed, folder)
                if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, ctypes.c_uint32(0)) < 0:
                    raise OSError(ctypes.get_errno(), "landlock_add_rule", str(path))
            finally:
                os.close(folder)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)
