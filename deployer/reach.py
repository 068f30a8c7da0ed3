"""How to log in to a participant's machine, as the ledger knows it. What `ssh`, `cp`, `logs`, `status`, `up` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import RefusedError, UsageError
from deployer.keys import KeyStore
from deployer.ledger import NOTHING_THERE, Ledger, Row

if TYPE_CHECKING:
    from startup_kits.workspace import Workspace


@dataclass(frozen=True)
class Reach:
    """Everything an SSH connection needs; `known_hosts` holds the only key that is accepted."""

    participant: str
    address: str
    port: int
    user: str
    key_path: Path
    known_hosts: Path


def reach(workspace: Workspace, participant: str) -> Reach:
    """How to log in to `participant`.

    Raises:
        UsageError: the ledger knows nobody of that name.
        RefusedError: it is not deployed, or its owner runs it where we can't log in.
    """
    ledger = Ledger(workspace.ledger_path)
    row = ledger.participant(participant)
    if row is None:
        known = [known.name for known in ledger.participants()]
        raise UsageError(
            "not deployed",
            participant=participant,
            why=f"the ledger knows {', '.join(known)}" if known else "nothing is deployed",
            next_step="fedspan up",
        )
    return reach_of(row, workspace.ssh_dir)


def reach_of(row: Row, ssh_dir: Path) -> Reach:
    """How to log in to the machine of a ledger's row. Raises RefusedError where there is none."""
    if row.target == "kit":
        raise RefusedError(
            "its owner runs it",
            participant=row.name,
            why="a kit target is started by its owner; nobody else can log in",
            next_step="ask its owner",
        )
    if row.address is None or row.phase in NOTHING_THERE:
        raise RefusedError("not deployed", participant=row.name, next_step=f"fedspan up {row.name}")
    keys = KeyStore(ssh_dir)
    key = row.outputs.get("key_path")
    return Reach(
        participant=row.name,
        address=row.address,
        port=row.ssh_port or 22,
        user=row.ssh_user or "fedspan",
        key_path=Path(key) if key else keys.login_path,
        known_hosts=Path(row.outputs.get("known_hosts") or keys.known_hosts),
    )
