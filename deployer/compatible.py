"""Whether runtimes of different versions can work together, and with the state that lies on a machine. Pure.

Each side speaks a range of protocols (its own and the one before), and reads state of its own schema or an older one.
So what must hold after an upgrade or a rollback is known before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployer.errors import RefusedError


@dataclass(frozen=True)
class Abilities:
    """What a runtime is: version, oldest and newest protocol that it speaks, schema of state by role (0: unknown)."""

    version: str
    oldest: int
    newest: int
    schema: Mapping[str, int]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Abilities:
        """From `python -m fl_runtime version`."""
        protocol = document["protocol"]
        return cls(str(document["version"]), protocol["oldest"], protocol["newest"], dict(document["schema"]))

    @property
    def protocols(self) -> str:
        """`protocols 1 to 2`."""
        return f"protocols {self.oldest} to {self.newest}" if self.oldest != self.newest else f"protocol {self.newest}"

    def speaks_with(self, other: Abilities) -> bool:
        """Whether there is a protocol that both speak."""
        return max(self.oldest, other.oldest) <= min(self.newest, other.newest)


def check_protocols(after: Mapping[str, Abilities], verb: str) -> None:
    """Refuse what would leave server and sites without a common protocol. `after`: by name, as it would be.

    Raises:
        RefusedError: naming the first site, and what to do first.
    """
    server = after.get("server")
    if server is None:
        return
    for name, site in after.items():
        if name == "server" or site.speaks_with(server):
            continue
        behind = name if site.newest < server.oldest else "server"
        raise RefusedError(
            "would no longer speak with the server" if verb == "upgrade" else "could not speak with the server",
            participant=name,
            why=f"it: fedspan {site.version} ({site.protocols}), the server: {server.version} ({server.protocols})",
            next_step=f"fedspan upgrade {behind} first, from a fedspan of a version between the two"
            if verb == "upgrade"
            else "fedspan rollback, of everybody together",
        )


def check_schema(name: str, role: str, now: Abilities | None, then: Abilities) -> None:
    """Refuse a runtime that can't read the state which the present one has written.

    Raises:
        RefusedError: the state's schema is newer.
    """
    have, reads = (now.schema.get(role, 0) if now else 0), then.schema.get(role, 0)
    if have > reads:
        raise RefusedError(
            "its state is of a newer fedspan than the runtime that was asked for",
            participant=name,
            why=f"the state has schema {have}; fedspan {then.version} reads up to {reads}",
            next_step=f"fedspan upgrade {name} brings a runtime that reads it",
        )
