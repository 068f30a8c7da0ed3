"""Faults on request: what should go wrong in the emulated clouds, for tests and demonstrations.

They lie in `faults.json` in the sandbox's home and are read live: whoever consults the `FaultBook` sees a change at
once, at the cost of one `stat`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Short names that a person may type for what both clouds have.
ALIASES: dict[str, tuple[str, ...]] = {
    "vm": ("ec2:instance", "Microsoft.Compute/virtualMachines"),
    "address": ("ec2:eip", "ec2:elastic-ip", "Microsoft.Network/publicIPAddresses"),
    "volume": ("ec2:volume", "Microsoft.Compute/disks"),
    "network": ("ec2:vpc", "Microsoft.Network/virtualNetworks"),
    "subnet": ("ec2:subnet", "Microsoft.Network/virtualNetworks/subnets"),
    "rules": ("ec2:security-group", "Microsoft.Network/networkSecurityGroups"),
    "interface": ("ec2:network-interface", "Microsoft.Network/networkInterfaces"),
    "group": ("Microsoft.Resources/resourceGroups",),
}


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Kinds are those of `InventoryItem.kind`, a Pulumi type, a word of `ALIASES`, or "*"."""

    delays: Mapping[str, float] = field(default_factory=dict)  # kind -> seconds before a create or delete is done
    no_capacity: tuple[str, ...] = ()  # zones, regions, sizes, or "spot": of which no machine can be made
    never_ssh: tuple[str, ...] = ()  # participants whose machine never opens SSH
    wrong_host_key: tuple[str, ...] = ()  # participants whose machine shows another host key
    fail: Mapping[str, str] = field(default_factory=dict)  # kind -> message with which its creation fails
    # participant -> delay_ms, loss_percent, rate_mbit of its link (only machines of the nspawn driver have one)
    links: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        return {**data, "delays": dict(self.delays), "fail": dict(self.fail), "links": dict(self.links)}

    @classmethod
    def from_json(cls, data: object) -> Faults:
        """Raises ValueError that says what is wrong with the first bad field."""
        if not isinstance(data, dict):
            raise ValueError("faults are a JSON object")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown fault {unknown[0]!r}: there are {', '.join(sorted(known))}")
        delays = data.get("delays", {})
        if not isinstance(delays, dict) or not all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 3600 for v in delays.values()
        ):
            raise ValueError("delays maps a kind of resource to seconds (0 to 3600)")
        fail = data.get("fail", {})
        if not isinstance(fail, dict) or not all(isinstance(v, str) for v in fail.values()):
            raise ValueError("fail maps a kind of resource to a message")
        links = data.get("links", {})
        if not isinstance(links, dict) or not all(_is_link(link) for link in links.values()):
            raise ValueError(f"links maps a participant to {', '.join(LINK)}, each a number of 0 or more")
        lists: dict[str, tuple[str, ...]] = {}
        for name in ("no_capacity", "never_ssh", "wrong_host_key"):
            value = data.get(name, [])
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise ValueError(f"{name} is a list of names")
            lists[name] = tuple(value)
        return cls(
            delays={str(k): float(v) for k, v in delays.items()},
            fail={str(k): v for k, v in fail.items()},
            links={str(k): {name: float(number) for name, number in v.items()} for k, v in links.items()},
            **lists,
        )


LINK = ("delay_ms", "loss_percent", "rate_mbit")


def _is_link(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= set(LINK)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in value.values())
    )


def _names(kinds: tuple[str, ...]) -> set[str]:
    wanted = {kind.lower() for kind in kinds}
    for alias, members in ALIASES.items():
        if wanted & {member.lower() for member in members}:
            wanted.add(alias)
    return wanted | {"*"}


class FaultBook:
    """The faults of one sandbox, read live from a file. Thread-safe; a missing file means no faults."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._faults = Faults()

    def read(self) -> Faults:
        if self.path is None:
            return self._faults
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return Faults()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        with self._lock:
            if stamp != self._stamp:
                self._faults = Faults.from_json(json.loads(self.path.read_text()))
                self._stamp = stamp
            return self._faults

    def write(self, faults: Faults) -> None:
        if self.path is None:
            self._faults = faults
            return
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(json.dumps(faults.to_json(), indent=2) + "\n")
        os.replace(draft, self.path)

    def delay(self, *kinds: str) -> float:
        """Seconds to wait for a resource that goes by any of the names `kinds`; 0 without a fault."""
        names = _names(kinds)
        return max((s for kind, s in self.read().delays.items() if kind.lower() in names), default=0.0)

    def sleep(self, *kinds: str, cancelled: threading.Event | None = None) -> bool:
        """Waits as long as `delay` says. False if `cancelled` was set meanwhile."""
        seconds = self.delay(*kinds)
        if seconds <= 0:
            return True
        if cancelled is None:
            time.sleep(seconds)
            return True
        return not cancelled.wait(seconds)

    def failure(self, *kinds: str) -> str | None:
        """The message with which creating such a resource has to fail, or None."""
        names = _names(kinds)
        return next((text for kind, text in self.read().fail.items() if kind.lower() in names), None)

    def no_capacity(self, *places: str | None) -> bool:
        """Whether one of `places` (zone, region) has no capacity for machines."""
        full = {place.lower() for place in self.read().no_capacity}
        return any(place.lower() in full for place in places if place)


_book = FaultBook(None)


def use(path: Path) -> FaultBook:
    """Makes `path` the file that `book()` reads in this process (the daemon does so at its start)."""
    global _book
    _book = FaultBook(path)
    return _book


def book() -> FaultBook:
    """This process's fault book; without `use` an empty one, so that an emulation also runs on its own."""
    return _book
