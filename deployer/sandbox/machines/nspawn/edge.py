"""A machine's edge: where its cloud's network ends and the machine begins. The supervisor lives in this namespace.

    machine (its own namespace)  eth0 ── vm0  edge: filter, 1:1 NAT, metadata, shaping  net0 ── bridge of the sandbox

Machines of different accounts have the same private addresses, so each has an edge. All of it goes with the namespaces,
and those go with the supervisor and the machine: there is nothing to clean up, whatever is killed.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

from deployer.sandbox.machines.nspawn import tools
from deployer.sandbox.machines.nspawn.core import BRIDGE
from deployer.sandbox.machines.nspawn.rules import DOWN, METADATA, UP, Edge, Link, ruleset, shaping

MACHINE = "machine"
"""The machine's network namespace, under a /run/netns that only the supervisor sees."""
NAMESPACE = f"/run/netns/{MACHINE}"


def mac(identity: str) -> str:
    """The hardware address of a machine (or of a public address): locally administered, always the same."""
    digits = hashlib.sha256(identity.encode()).hexdigest()
    return ":".join(["02", *(digits[i : i + 2] for i in range(0, 10, 2))])


def gateway(private: str) -> str:
    """The first address of the machine's /24, where both clouds have their router."""
    network = ipaddress.ip_interface(f"{private}/24").network
    first, second = network[1], network[2]
    return str(second if str(first) == private else first)


def build(core: str, machine_id: str, private: str) -> None:
    """Makes links and namespaces; this process must be in fresh mount and network namespaces. Raises OSError."""
    port = f"p{hashlib.sha256(machine_id.encode()).hexdigest()[:12]}"
    hardware, router = mac(machine_id), gateway(private)
    for name, value in (("ipv4/ip_forward", "1"), ("ipv6/conf/all/disable_ipv6", "1")):
        setting = Path("/proc/sys/net") / name
        if setting.exists():
            setting.write_text(value)
    tools.batch([f"link add {UP} type veth peer name {port} netns {core}", "link set lo up"])
    tools.batch([f"link set {port} master {BRIDGE}", f"link set {port} up"], core)
    tools.call(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run/netns"])
    tools.call(["ip", "netns", "add", MACHINE])
    tools.batch(
        [
            f"link add {DOWN} type veth peer name eth0 address {hardware} netns {MACHINE}",
            f"address add {router}/32 dev {DOWN}",
            f"address add {METADATA}/32 dev {DOWN}",
            f"link set {DOWN} up",
            f"route add {private}/32 dev {DOWN} src {router}",
        ]
    )
    tools.batch(
        [
            "link set lo up",
            f"address add {private}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {router}",
        ],
        MACHINE,
    )


def apply(before: Edge | None, edge: Edge) -> None:
    """Makes filter and addresses what they have to be. Raises OSError with nft's words."""
    tools.call(["nft", "-f", "-"], ruleset(edge))
    had = _addresses(before)
    has = _addresses(edge)
    lines = [f"address delete {address}/32 dev {UP}" for address in had if address not in has]
    lines += [f"address add {address}/32 dev {UP}" for address in has if address not in had]
    if not edge.public:
        lines.append(f"link set {UP} down")
    else:
        # An address keeps its hardware address, whatever machine has it: neighbours remember that for half a minute.
        lines.append(f"link set {UP} address {mac(edge.public)}")
        # Whoever is asked for answers on the bridge; what is allowed to leave says the filter.
        lines += [f"link set {UP} up", f"route replace default dev {UP} src {edge.public}"]
    tools.batch(lines)


def _addresses(edge: Edge | None) -> list[str]:
    if edge is None or not edge.public:
        return []
    return list(dict.fromkeys([edge.public, edge.egress or edge.public]))


def shape(link: Link) -> None:
    """Slows the machine's way to the network, both directions. Raises OSError where the kernel lacks a discipline."""
    for device in (UP, DOWN):
        tools.call(["tc", "qdisc", "delete", "dev", device, "root"], check=False)
        for command in shaping(link, device):
            tools.call(command)
