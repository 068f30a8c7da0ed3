"""What a job asks of each site: GPUs, memory, slots. Used by the spec, the hub's scheduler and the agent's count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_KEYS = ("gpus", "gpu_memory", "memory", "slots")


def parse_bytes(value: Any) -> int:
    """`16GB` (10^9), `16GiB` (2^30) or a number of bytes.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no size")
    if isinstance(value, (int, float)):
        return _natural(value, value)
    found = _SIZE.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{value!r} is no size such as 16GB or 512MiB")
    number, prefix, binary = found.groups()
    power = " KMGT".index(prefix.upper() or " ")
    return _natural(float(number) * float((1024 if binary else 1000) ** power), value)


def show_bytes(size: int) -> str:
    """For people: `16.0 GB`."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size / 1000:.0f} kB"


@dataclass(frozen=True)
class Need:
    """What one job takes on one site. Sizes in bytes; 0 = none asked for."""

    gpus: int = 0
    gpu_memory: int = 0  # of each GPU
    memory: int = 0
    slots: int = 1

    def document(self) -> dict[str, int]:
        return {"gpus": self.gpus, "gpu_memory": self.gpu_memory, "memory": self.memory, "slots": self.slots}

    def __str__(self) -> str:
        parts = [f"{self.slots} slot{'s' * (self.slots != 1)}"]
        if self.gpus:
            each = f" of {show_bytes(self.gpu_memory)}" if self.gpu_memory else ""
            parts.append(f"{self.gpus} GPU{'s' * (self.gpus != 1)}{each}")
        if self.memory:
            parts.append(show_bytes(self.memory))
        return ", ".join(parts)


def parse_need(document: Mapping[str, Any]) -> Need:
    """`resources` of job.yml.

    Raises:
        ValueError: an unknown key or a value that can't be; names it.
    """
    for key in document:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(_KEYS)}")

    def count(key: str, default: int, least: int) -> int:
        value = document.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{key} must be a whole number of at least {least}, it is {value!r}")
        return value

    return Need(
        gpus=count("gpus", 0, 0),
        gpu_memory=parse_bytes(document.get("gpu_memory", 0)),
        memory=parse_bytes(document.get("memory", 0)),
        slots=count("slots", 1, 1),
    )


def _natural(number: float, given: Any) -> int:
    if not 0 <= number < 2**63:  # not a number, either
        raise ValueError(f"{given!r} is no size")
    return int(number)
