"""A machine's edge: where its cloud's network ends and the machine begins. The supervisor lives in this namespace.

    machine (its own namespace)  eth0 ── vm0  edge: filter, 1:1 NAT, metadata, shaping  net0 ── bridge of the sandbox
                                                                                       priv0 ── bridge of its network

Machines of one private network reach one another by the second bridge, where each edge answers for its machine.
Machines of different accounts have the same private addresses, so each has an edge. All of it goes with the namespaces,
and those go with the supervisor and the machine: there is nothing to clean up, whatever is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
from pathlib import Path

from deployer.sandbox.machines.nspawn import tools
from deployer.sandbox.machines.nspawn.core import BRIDGE
from deployer.sandbox.machines.nspawn.rules import DOWN, METADATA, SIDE, UP, Edge, Link, ruleset, shaping

MACHINE = "machine"
"""The machine's network namespace, under a /run/netns that only the supervisor sees."""
NAMESPACE = f"/run/netns/{MACHINE}"
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


def mac(identity: str) -> str:
    """The hardware address of a machine (or of a public address): locally administered, always the same."""
    digits = hashlib.sha256(identity.encode()).hexdigest()
    return ":".join(["02", *(digits[i : i + 2] for i in range(0, 10, 2))])


def gateway(private: str) -> str:
    """The first address of the machine's /24, where both clouds have their router."""
    network = ipaddress.ip_interface(f"{private}/24").network
    first, second = network[1], network[2]
    return str(second if str(first) == private else first)


def build(core: str, machine_id: str, private: str, network: str) -> None:
    """Makes links and namespaces; this process must be in fresh mount and network namespaces. Raises OSError.

    Without the ID of a private `network` the machine is alone in its own.
    """
    port = f"p{hashlib.sha256(machine_id.encode()).hexdigest()[:12]}"
    hardware, router = mac(machine_id), gateway(private)
    for name, value in (("ipv4/ip_forward", "1"), ("ipv6/conf/all/disable_ipv6", "1")):
        setting = Path("/proc/sys/net") / name
        if setting.exists():
            setting.write_text(value)
    tools.batch([f"link add {UP} type veth peer name {port} netns {core}", "link set lo up"])
    tools.batch([f"link set {port} master {BRIDGE}", f"link set {port} up"], core)
    if network:
        _join(core, machine_id, network)
    # From here on other namespaces can't be named any more.
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
    for device in (DOWN, SIDE) if network else ():
        Path(f"/proc/sys/net/ipv4/conf/{device}/proxy_arp").write_text("1")
        Path(f"/proc/sys/net/ipv4/neigh/{device}/proxy_delay").write_text("0")


def _join(core: str, machine_id: str, network: str) -> None:
    """Puts the edge on the bridge of the machine's private network."""
    bridge = f"n{hashlib.sha256(network.encode()).hexdigest()[:12]}"
    digest = hashlib.sha256(machine_id.encode()).digest()
    port = f"q{digest.hex()[:12]}"
    with contextlib.suppress(OSError):  # another machine of this network has made it
        tools.batch([f"link add {bridge} type bridge"], core)
    tools.batch([f"link add {SIDE} type veth peer name {port} netns {core}"])
    tools.batch([f"link set {bridge} up", f"link set {port} master {bridge}", f"link set {port} up"], core)
    # Of no use but to ask for others by: routers of different edges have the same address.
    own = f"169.254.{digest[0] % 160}.{digest[1] % 254 + 1}"
    routes = [f"route add {block} dev {SIDE}" for block in _PRIVATE]
    tools.batch([f"address add {own}/16 dev {SIDE}", f"link set {SIDE} up", *routes])


def apply(edge: Edge) -> None:
    """Makes filter and addresses what they have to be, whatever they are. Raises OSError with nft's or ip's words."""
    tools.call(["nft", "-f", "-"], ruleset(edge))
    # Asked of the kernel and not remembered: a change that failed halfway has left some of them.
    had = _addresses()
    has = list(dict.fromkeys(address for address in (edge.public, edge.egress) if address))
    lines = [f"address delete {address}/32 dev {UP}" for address in had if address not in has]
    lines += [f"address add {address}/32 dev {UP}" for address in has if address not in had]
    if not has:
        lines.append(f"link set {UP} down")
    else:
        # An address keeps its hardware address, whatever machine has it: neighbours remember that for half a minute.
        lines.append(f"link set {UP} address {mac(has[0])}")
        # Whoever is asked for answers on the bridge; what is allowed to leave says the filter.
        lines += [f"link set {UP} up", f"route replace default dev {UP} src {has[0]}"]
    tools.batch(lines)


def _addresses() -> list[str]:
    """The addresses that the edge has on the network now."""
    (link,) = json.loads(tools.call(["ip", "-json", "-4", "address", "show", "dev", UP])) or [{}]
    return [address["local"] for address in link.get("addr_info", [])]


def shape(link: Link) -> None:
    """Slows the machine's way to the network, both directions. Raises OSError where the kernel lacks a discipline."""
    for device in (UP, DOWN):
        tools.call(["tc", "qdisc", "delete", "dev", device, "root"], check=False)
        for command in shaping(link, device):
            tools.call(command)
