"""Which wheels a machine can install: its Python, processor and C library as tags and markers. Pure."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from deployer.facts import MachineFacts

_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True)
class Target:
    """An interpreter on a machine.

    Attributes:
        version: (major, minor) of CPython.
        arch: `x86_64`, `aarch64`.
        glibc: (major, minor), None on another C library (musl).
    """

    version: tuple[int, int]
    arch: str
    glibc: tuple[int, int] | None

    @classmethod
    def of(cls, facts: MachineFacts) -> Target:
        return cls(facts.version[:2], facts.arch, facts.glibc)

    @classmethod
    def here(cls) -> Target:
        """This interpreter."""
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split() if hasattr(os, "confstr") else []
        glibc = None
        if len(words) == 2 and words[0] == "glibc":
            major, minor = words[1].split(".")[:2]
            glibc = (int(major), int(minor))
        return cls(sys.version_info[:2], platform.machine(), glibc)

    def __str__(self) -> str:
        libc = f"glibc {self.glibc[0]}.{self.glibc[1]}" if self.glibc else "musl"
        return f"Python {self.version[0]}.{self.version[1]} on {self.arch} with {libc}"

    @property
    def python(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def interpreter(self) -> str:
        return f"cp{self.version[0]}{self.version[1]}"

    def same_interpreter(self, other: Target) -> bool:
        """Whether compiled modules of one load in the other, C library version aside."""
        mine, others = (self.version, self.arch, self.glibc is None), (other.version, other.arch, other.glibc is None)
        return mine == others

    def platforms(self) -> list[str]:
        """Platform tags that this machine takes, the newest C library first (PEP 600, PEP 656).

        pip takes a `--platform` literally, so each older one is named too.
        """
        if self.glibc is None:
            return [f"musllinux_1_{minor}_{self.arch}" for minor in (2, 1)]
        tags = []
        for minor in range(self.glibc[1], (16 if self.arch != "x86_64" else 4), -1):
            tags.append(f"manylinux_2_{minor}_{self.arch}")
            if (2, minor) in _LEGACY:
                tags.append(f"{_LEGACY[2, minor]}_{self.arch}")
        return tags

    def takes(self, platforms: list[str]) -> bool:
        """Whether one of a wheel's platform tags fits."""
        mine = {"any", *self.platforms()}
        return any(tag in mine for tag in platforms)

    def markers(self) -> dict[str, str]:
        """The environment for requirement markers (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }
