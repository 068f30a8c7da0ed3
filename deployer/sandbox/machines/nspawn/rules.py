"""A machine's packet filter and its link, as text for `nft` and words for `tc`; nothing is touched here.

The filter stands where a cloud's does: outside of the machine, on its way to the network. The machine knows only its
private address; its public one is translated 1:1, as by an internet gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployer.sandbox.model import Rule

METADATA = "169.254.169.254"
UP, DOWN, SIDE = "net0", "vm0", "priv0"
"""The edge's interfaces: to the world, to the machine, and to the other machines of its private network."""

_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "icmp": "icmp", "1": "icmp"}


@dataclass(frozen=True)
class Edge:
    """What the filter is made from."""

    private: str
    public: str | None  # None: no way in from the world
    egress: str | None  # the address that others see: the public one, or that of a NAT before it; None: no way out
    block: str  # the sandbox's public addresses: the only ones that the machine reaches
    ingress: tuple[Rule, ...] = ()


def ruleset(edge: Edge) -> str:
    """The whole table; loading it replaces the one before in one step.

    Connections that were let in live on when their rule goes, as in a cloud. What is not let in gets no answer. What
    would leave the sandbox is answered "no route", so that nothing on the machine waits for an internet.
    """
    lines = [
        "table ip fedspan {}",
        "delete table ip fedspan",
        "table ip fedspan {",
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat;",
        *([f'    iifname "{UP}" ip daddr {edge.public} dnat to {edge.private}'] if edge.public else []),
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat;",
        *([f'    oifname "{UP}" ip saddr {edge.private} snat to {edge.egress}'] if edge.egress else []),
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy drop;",
        "    ct state established,related accept",
        "    ct state invalid drop",
    ]
    for device in (UP, SIDE) if edge.public else (SIDE,):
        lines += [f"    {permission}" for permission in permissions(edge.ingress, edge.private, device)]
    lines.append(f'    iifname "{DOWN}" oifname "{SIDE}" ip saddr {edge.private} accept')
    if edge.egress:
        lines.append(f'    iifname "{DOWN}" oifname "{UP}" ip saddr {edge.private} ip daddr {edge.block} accept')
    lines += [
        f'    iifname "{DOWN}" reject with icmp type net-unreachable',
        "  }",
        "  chain input {",
        "    type filter hook input priority filter; policy drop;",
        "    ct state established,related accept",
        f'    iifname "{DOWN}" ip daddr {METADATA} tcp dport {{ 80, 443 }} accept',
        f'    iifname "{DOWN}" ip protocol tcp reject with tcp reset',
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def permissions(rules: Iterable[Rule], private: str, device: str = UP) -> list[str]:
    """The lines that let somebody in by an interface, one for each rule; one without a valid source lets nobody in."""
    found = []
    for rule in rules:
        source = rule.source
        if source is None:
            continue
        head = f'iifname "{device}" ip daddr {private} ip saddr {source}'
        protocol = _PROTOCOLS.get(rule.protocol.lower())
        first, last = rule.span
        if protocol in ("tcp", "udp"):
            found.append(f"{head} {protocol} dport {first}-{last} accept")
        elif protocol == "icmp":
            found.append(f"{head} ip protocol icmp accept")
        elif rule.allows_tcp and rule.protocol == "-1":
            found.append(f"{head} accept")
        elif rule.allows_tcp:
            found.append(f"{head} meta l4proto {{ tcp, udp }} th dport {first}-{last} accept")
    return list(dict.fromkeys(found))


def open_ports(rules: Iterable[Rule]) -> list[int]:
    """The TCP ports that somebody may come to, of rules that name ports; wide ones are not counted out."""
    ports: set[int] = set()
    for rule in rules:
        first, last = rule.span
        if rule.allows_tcp and rule.source is not None and not rule.is_wide:
            ports |= set(range(first, last + 1))
    return sorted(ports)


@dataclass(frozen=True)
class Link:
    """How good a machine's way to the network is. Delay is of the round trip; loss and rate are of each direction."""

    delay_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit: float = 0.0  # 0: as fast as it goes


def shaping(link: Link, device: str) -> list[list[str]]:
    """Commands of `tc` for one direction; none for a link that is not held back."""
    commands = []
    parent = ["root"]
    if link.rate_mbit > 0:
        rate = f"{link.rate_mbit:g}mbit"
        # A bucket of 10 ms at this rate, and never less than a few packets.
        burst = f"{max(16384, int(link.rate_mbit * 1e6 / 8 / 100))}"
        bucket = ["handle", "1:", "tbf", "rate", rate, "burst", burst, "latency", "400ms"]
        commands.append(["tc", "qdisc", "add", "dev", device, "root", *bucket])
        parent = ["parent", "1:1"]
    if link.delay_ms > 0 or link.loss_percent > 0:
        words = ["handle", "2:", "netem", "limit", "100000"]
        words += ["delay", f"{link.delay_ms / 2:g}ms"] if link.delay_ms > 0 else []
        words += ["loss", f"{link.loss_percent:g}%"] if link.loss_percent > 0 else []
        commands.append(["tc", "qdisc", "add", "dev", device, *parent, *words])
    return commands
