"""How a machine turns itself off for good: it powers off; in Azure one with an identity of its own deallocates first.

The command is `deployer.remote.deallocate`, put there as root's. Which of the two a machine does, its stack's output
`self_deallocate` says: whoever talks to the machine needs no federation.yml for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployer.deployment import Deployment
    from deployer.member import Member
    from deployer.realm import Management
    from deployer.ssh import Machine

FOLDER = "/usr/local/lib/fedspan"
SCRIPT_PATH = f"{FOLDER}/deallocate.py"
CA_PATH = f"{FOLDER}/arm-ca.crt"


@dataclass(frozen=True)
class Deallocation:
    """What a machine needs to deallocate itself: its own resource ID, and where its cloud is asked."""

    vm_id: str
    management: Management

    @property
    def argv(self) -> tuple[str, ...]:
        """The command, as it stands in units."""
        where = self.management
        words = ("/usr/bin/python3", "-I", SCRIPT_PATH, "--vm", self.vm_id, "--arm", where.arm)
        return (*words, "--metadata", where.metadata, *(("--ca", CA_PATH) if where.ca else ()))


def deallocation_of(deployment: Deployment, member: Member) -> Deallocation | None:
    """How a participant's machine deallocates itself; None: it only powers itself off."""
    row = deployment.ledger.participant(member.name)
    if row is None or not row.outputs.get("self_deallocate"):
        return None
    vm_id = str(row.outputs["vm_id"])
    return Deallocation(vm_id, deployment.realm.azure_management(member, vm_id))


def put_script(machine: Machine, how: Deallocation | None) -> None:
    """Bring what the command needs to the machine; nothing where it only powers itself off."""
    if how is None:
        return
    path = machine.facts().path
    script = resources.files("deployer.remote").joinpath("deallocate.py").read_bytes()
    machine.put_file(script, path(SCRIPT_PATH), privileged=True)
    if how.management.ca:
        machine.put_file(how.management.ca, path(CA_PATH), privileged=True)
