"""How to log in to a participant's machine, as the ledger knows it. What `ssh`, `cp`, `logs`, `status`, `up` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.errors import RefusedError, UsageError
from deployer.keys import KeyStore
from deployer.ledger import NOTHING_THERE, Ledger, Row

if TYPE_CHECKING:
    from deployer.ssh import Machine
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
    jump: str = ""
    agent: bool = False
    door: Callable[[], Callable[[], None]] | None = None
    """Opens the way for SSH where it is closed between operations, and returns what closes it."""

    def connect(
        self, deadline_s: float, on_wait: Callable[[str, float], None] | None = None, *, grace: bool = True
    ) -> Machine:
        """Log in, through the jump hosts where there are some. Without `grace` a refused login counts at once.

        Raises:
            HostKeyError: a machine on the way, or the last one, shows another key than the one that is known.
            UnreachableError: the deadline passed, or the login was refused.
        """
        from deployer.ssh import connect
        from deployer.ssh.connect import AUTH_GRACE_S
        from deployer.ssh.hops import parse_hops

        close = self.door() if self.door is not None else None
        try:
            machine = connect(
                self.address,
                self.port,
                self.user,
                self.key_path,
                self.known_hosts,
                deadline_s,
                on_wait,
                name=self.participant,
                auth_grace_s=AUTH_GRACE_S if grace else 0,
                hops=parse_hops(self.jump) if self.jump else (),
                agent=self.agent,
            )
        except BaseException:
            if close is not None:
                close()
            raise
        if close is not None:
            machine.at_close(close)
        return machine


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
        jump=str(row.outputs.get("jump") or ""),
        agent=bool(row.outputs.get("agent")),
        door=door_for(row),
    )


def door_for(row: Row) -> Callable[[], Callable[[], None]] | None:
    """What opens the way to a machine whose SSH is closed between operations; None where it is open anyway."""
    if row.cloud is None or row.outputs.get("ssh_access") != "during-operations":
        return None
    from deployer.ssh_door import hold_open

    return partial(hold_open, row)
