"""What the parts of the sandbox tell one another: machines, rules, inventory; plus the address pool and the faults.

The emulated clouds *describe* machines (`MachineSpec`), the machines' driver makes what is described come true, and
nobody calls into anybody else's state. All of it is plain data that goes through JSON unchanged.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployer.sandbox.addresses import AddressPool, AddressPoolExhausted
from deployer.sandbox.faults import FaultBook, Faults

__all__ = [
    "AddressPool",
    "AddressPoolExhausted",
    "FaultBook",
    "Faults",
    "InventoryItem",
    "MachineSpec",
    "Rule",
    "machine_from_json",
    "machine_to_json",
]

Cloud = Literal["aws", "azure", "host"]
WIDE = 64
"""Ports of a rule from which on it counts as one that opens them all."""


@dataclass(frozen=True)
class Rule:
    """One inbound permission: TCP `port_from`..`port_to` (both included) from `cidr`.

    `protocol` is the cloud's word ("tcp", "Tcp", "-1", "*", "udp"): `allows_tcp` reads it. Deny rules do not exist
    here: a cloud's view translates its own priorities into the permissions that remain.
    """

    port_from: int
    port_to: int
    protocol: str
    cidr: str

    @property
    def allows_tcp(self) -> bool:
        return self.protocol.lower() in ("tcp", "6", "-1", "*", "all")

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last port that it opens."""
        every = self.protocol == "-1"
        return (
            1 if every or self.port_from < 1 else self.port_from,
            65535 if every or self.port_to < 1 else self.port_to,
        )

    @property
    def is_wide(self) -> bool:
        """Whether it opens more TCP ports than are listened on, or told, one by one."""
        first, last = self.span
        return self.allows_tcp and last - first >= WIDE

    @property
    def source(self) -> str | None:
        """The IPv4 network that it lets in; None for what is none (IPv6, a tag): that lets nobody in."""
        cidr = "0.0.0.0/0" if self.cidr in ("*", "Internet", "Any") else self.cidr  # Azure's words
        try:
            return str(ipaddress.IPv4Network(cidr, strict=False))
        except ValueError:
            return None


@dataclass(frozen=True)
class MachineSpec:
    """One virtual machine as its cloud wants it to be. It exists as long as a cloud's view lists it."""

    id: str  # unique over both clouds, e.g. "i-0abc…" or ARM's resource ID; a replaced machine has another one
    cloud: Cloud
    account: str  # account id or subscription id
    region: str
    zone: str | None
    size: str
    running: bool  # False: stopped or deallocated; its disk stays
    user_data: str  # decoded text of user-data or custom-data; "" where there is none
    login_keys: tuple[tuple[str, str], ...] = ()  # (user, OpenSSH public key): Azure's osProfile, AWS's key pair
    public_ip: str | None = None  # from the sandbox's address pool; None: reachable by nobody
    private_ip: str = ""  # as the cloud shows it; traffic goes to a loopback address of the driver's own
    ingress: tuple[Rule, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()  # (volume id, device); their contents outlive the machine
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata_hops: int = 1  # EC2: how many hops the metadata service's token may travel
    boots: int = 0  # the cloud counts starts and reboots here: another number than last time means "boot it"
    network: str = ""  # ID of the private network that it is in (VPC, virtual network)
    egress_ip: str | None = None  # without a public address: the one by which its network lets it out (a NAT gateway's)

    @property
    def participant(self) -> str | None:
        """The participant that this machine is for, read from its tags (AWS and Azure spell the key differently)."""
        return self.tags.get("fedspan:participant") or self.tags.get("fedspan-participant")


@dataclass(frozen=True)
class InventoryItem:
    """One resource that exists in an emulated cloud, in the words of that cloud."""

    cloud: str
    account: str
    region: str
    kind: str  # "ec2:instance", "Microsoft.Network/publicIPAddresses", …
    id: str
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def machine_to_json(spec: MachineSpec) -> dict[str, Any]:
    """A `MachineSpec` as JSON-ready data (tuples become lists)."""
    return {**dataclasses.asdict(spec), "tags": dict(spec.tags)}


def machine_from_json(data: Mapping[str, Any]) -> MachineSpec:
    """The inverse of `machine_to_json`. Raises TypeError for unknown or missing fields."""
    fields = dict(data)
    fields["login_keys"] = tuple((user, key) for user, key in fields.get("login_keys", ()))
    fields["ingress"] = tuple(Rule(**rule) for rule in fields.get("ingress", ()))
    fields["volumes"] = tuple((volume, device) for volume, device in fields.get("volumes", ()))
    return MachineSpec(**fields)
