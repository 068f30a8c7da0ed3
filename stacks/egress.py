"""What a machine may reach: everything, or the server, DNS, time and package mirrors. Pure.

Names of rules say what they are for and not where it is, so that a server that moves changes a rule and makes no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stacks.args import ParticipantArgs
from stacks.names import Cloud
from stacks.rules import DENY_SLOT

_FIRST_SLOT = 100
"""Azure: outbound rules have priorities of their own."""

# The clouds' own resolvers. EC2 does not filter traffic to its own, but a group that says so is read by people too.
_DNS: dict[Cloud, tuple[str, ...]] = {"aws": ("10.42.0.2/32", "169.254.169.253/32"), "azure": ("168.63.129.16/32",)}
# Azure's management, as a service tag; a slot of its own, so that another mirror changes no rule but its own
_MANAGEMENT, _MANAGEMENT_SLOT = "AzureResourceManager", DENY_SLOT - 1
_TIME: dict[Cloud, str] = {"aws": "169.254.169.123/32", "azure": "0.0.0.0/0"}


@dataclass(frozen=True)
class EgressRule:
    """Where a machine may connect to: `cidr`, on Azure also a service tag. `port` None: every port; `protocol` `all`:
    every protocol."""

    kind: str
    protocol: Literal["tcp", "udp", "all"]
    cidr: str
    port: int | None
    description: str
    slot: int = _FIRST_SLOT


def egress_rules(cloud: Cloud, args: ParticipantArgs) -> list[EgressRule]:
    """Every outbound rule of a participant's machine.

    Restricted, a job that wants to send data elsewhere finds the ports 80 and 443 of the mirrors' networks open, and
    nothing else: name them (`mirrors`) where that is too much.
    """
    if args.existing.security_group:
        return []  # that group's own rules decide
    if not args.egress_restricted:
        return [EgressRule("egress", "all", "0.0.0.0/0", None, "everything outwards")]
    wanted: list[tuple[str, Literal["tcp", "udp"], str, int, str]] = []
    if args.server_cidr is not None and args.server_port is not None:
        wanted.append(("egress-server", "tcp", args.server_cidr, args.server_port, "server of the federation"))
    for number, resolver in enumerate(_DNS[cloud], start=1):
        wanted.append((f"egress-dns-udp-{number}", "udp", resolver, 53, "DNS"))
        wanted.append((f"egress-dns-tcp-{number}", "tcp", resolver, 53, "DNS"))
    wanted.append(("egress-time", "udp", _TIME[cloud], 123, "time"))
    for number, mirror in enumerate(args.mirrors, start=1):
        for name, port in (("http", 80), ("https", 443)):
            wanted.append((f"egress-mirror-{name}-{number}", "tcp", mirror, port, "package mirrors"))
    rules = [EgressRule(*rule, slot=_FIRST_SLOT + 10 * place) for place, rule in enumerate(wanted)]
    if cloud == "azure" and args.self_deallocate:
        told = "Azure's management, to deallocate itself"
        rules.append(EgressRule("egress-management", "tcp", _MANAGEMENT, 443, told, _MANAGEMENT_SLOT))
    return rules
