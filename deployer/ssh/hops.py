"""Machines that are reached through others: jump hosts, as `ssh -J` has them.

Each hop is logged in to with its own host key checked (against the operator's `~/.ssh/known_hosts`), and the next
connection runs inside it: nobody on the way sees more than ciphertext.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

_HOP = re.compile(
    r"(?:(?P<user>[A-Za-z_][\w.-]{0,31})@)?(?P<host>[A-Za-z0-9][\w.-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True)
class Hop:
    """One jump host. `user` is empty for the same login as on the machine behind it."""

    host: str
    port: int = 22
    user: str = ""

    def __str__(self) -> str:
        port = "" if self.port == 22 else f":{self.port}"
        return f"{self.user}@{self.host}{port}" if self.user else f"{self.host}{port}"


def parse_hops(text: str) -> tuple[Hop, ...]:
    """`ana@bastion.example:2222`, or several with commas between them, the nearest first. Pure.

    Raises:
        ValueError: it is none.
    """
    hops = []
    for word in text.split(","):
        match = _HOP.fullmatch(word.strip())
        port = int(match["port"] or 22) if match else 0
        if match is None or not 1 <= port <= 65535:
            raise ValueError(f"{word.strip()!r} is no jump host; write it like ana@bastion.example:22")
        hops.append(Hop(match["host"].strip("[]"), port, match["user"] or ""))
    return tuple(hops)


def open_hops(
    hops: Sequence[Hop], user: str, key_path: Path, *, agent: bool, deadline_s: float
) -> list[paramiko.Transport]:
    """Log in to each hop through the one before it; the last one carries what comes next.

    With the machine's key, and with those that the operator's own `ssh -J` would take: a bastion knows the operator.

    Raises:
        HostKeyError: a hop's key is not in the operator's known_hosts, or is another one.
        UnreachableError: a hop does not answer or refuses the login.
    """
    from deployer.ssh.agent import operators_keys
    from deployer.ssh.connect import open_transport

    known = Path.home() / ".ssh" / "known_hosts"
    opened: list[paramiko.Transport] = []
    also = operators_keys(agent=not agent)
    try:
        for hop in hops:
            opened.append(
                open_transport(
                    hop.host,
                    hop.port,
                    hop.user or user,
                    key_path,
                    known,
                    deadline_s=deadline_s,
                    auth_grace_s=0,
                    name=f"jump host {hop}",
                    via=opened[-1] if opened else None,
                    agent=agent,
                    also=also,
                )
            )
    except BaseException:
        close_hops(opened)
        raise
    return opened


def close_hops(opened: Sequence[paramiko.Transport]) -> None:
    """Hang up, the farthest first."""
    for transport in reversed(opened):
        transport.close()
