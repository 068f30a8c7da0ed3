"""Which ports are open from where: one rule for each network, least open, pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from stacks.args import ParticipantArgs

# Azure allows priorities 100 to 4096 and refuses two inbound rules with one priority, even for a moment.
_SSH_SLOTS = range(1000, 2000)
_RUNTIME_SLOTS = range(2000, 4000)

DENY_SLOT = 4096
"""Azure's last priority, inbound and outbound: the rule there denies what the ones before did not allow."""

INGRESS_DENY = "ingress-deny"
"""The end of the inbound one's name. EC2's security groups deny by themselves."""


@dataclass(frozen=True)
class IngressRule:
    """One network may reach one TCP port. `kind` is the end of the logical name, `slot` the priority on Azure."""

    purpose: str
    cidr: str
    port: int
    slot: int

    @property
    def aws_kind(self) -> str:
        """`ssh-198-51-100-10-32`: named by the network, so that a network more or less touches no other rule."""
        return f"{self.purpose}-{self.cidr.replace('.', '-').replace('/', '-')}"

    @property
    def azure_kind(self) -> str:
        """`ssh-1042`: named by the priority, so that no update ever brings two rules to the same priority."""
        return f"{self.purpose}-{self.slot}"

    @property
    def description(self) -> str:
        """What the clouds' consoles show."""
        what = "SSH" if self.purpose == "ssh" else "federation runtime, mutual TLS"
        return f"{what} from {self.cidr}"


def ingress_rules(args: ParticipantArgs) -> list[IngressRule]:
    """Every inbound rule of a participant: SSH for all, the runtime's port for the server only."""
    if args.existing.security_group:
        return []  # that group's own rules decide
    rules = _placed("ssh", args.ssh_port, args.ssh_ingress, _SSH_SLOTS)
    if args.role == "server" and args.runtime_port is not None:
        rules += _placed("runtime", args.runtime_port, args.runtime_ingress, _RUNTIME_SLOTS)
    return rules


def _placed(purpose: str, port: int, cidrs: Iterable[str], slots: range) -> list[IngressRule]:
    """Give each network a slot by its hash; of two that meet, the second (by address) takes the next free one."""
    taken: dict[int, IngressRule] = {}
    for cidr in sorted(cidrs, key=lambda text: ipaddress.IPv4Network(text)):
        digest = int.from_bytes(hashlib.sha256(f"{purpose} {cidr}".encode()).digest()[:8], "big")
        slot = slots[digest % len(slots)]
        while slot in taken:
            slot = slot + 1 if slot + 1 in slots else slots[0]
        taken[slot] = IngressRule(purpose, cidr, port, slot)
    return list(taken.values())
