"""What will be open from where. Pure: from participants, addresses and permissions to rules, and to words.

The server's port is open to the sites' addresses, to what `fedspan allow` let in, and to the admins' networks. SSH is
open to the operator. A site has no ingress but SSH. Nothing is ever open to the world.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deployer.errors import SpecError
from deployer.member import Member
from stacks.args import MAX_RULES

# documentation networks (RFC 5737): they stand for addresses that don't exist yet, in plans only
PLACEHOLDERS = ipaddress.IPv4Network("192.0.2.0/24")


@dataclass(frozen=True)
class Opening:
    """One permission: `port` is open for `cidr`, which is `who`'s. `pending`: the address is still to be allocated."""

    port: int
    cidr: str
    who: str
    pending: bool = False

    @property
    def source(self) -> str:
        """The network, or in words where it is not known yet."""
        return f"address of {self.who}" if self.pending else self.cidr

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {"port": self.port, "from": None if self.pending else self.cidr, "who": self.who}


def host_route(address: str) -> str:
    """An address as a network of its own: 203.0.113.7 becomes 203.0.113.7/32."""
    return address if "/" in address else f"{address}/32"


def placeholder(index: int) -> str:
    """The network that stands for the `index`-th unknown address in a plan."""
    return f"{PLACEHOLDERS[1 + index % 250]}/32"


def runtime_openings(
    server: Member,
    members: Iterable[Member],
    addresses: Mapping[str, str],
    allowed: Mapping[str, Sequence[str]],
    admins: Mapping[str, Sequence[str]],
) -> list[Opening]:
    """From where the server's port may be reached; one entry a network, in the order sites, allowed, admins.

    Args:
        server: the server; its `port` comes from its kit.
        members: all participants.
        addresses: static addresses known so far, by participant.
        allowed: networks of `fedspan allow`, by site.
        admins: networks of the admins' `from`, by admin.
    """
    assert server.port is not None, "the kit names the server's port"
    found: dict[str, Opening] = {}

    def add(cidr: str, who: str, pending: bool = False) -> None:
        before = found.get(cidr)
        names = who if before is None or who in before.who.split(", ") else f"{before.who}, {who}"
        found[cidr] = Opening(server.port or 0, cidr, names, pending)

    unknown = 0
    for member in members:
        if member.role == "server":
            continue
        if member.cloud:
            if member.name in addresses:
                add(host_route(addresses[member.name]), member.name)
            else:
                add(placeholder(unknown), member.name, pending=True)
                unknown += 1
        for cidr in member.egress:
            add(host_route(cidr), member.name)
        if member.target == "host" and not member.egress and member.host and is_address(member.host):
            add(host_route(member.host), member.name)
    for site, cidrs in allowed.items():
        for cidr in cidrs:
            add(host_route(cidr), site)
    for admin, cidrs in admins.items():
        for cidr in cidrs:
            add(host_route(cidr), admin)
    return list(found.values())


def ssh_openings(port: int, networks: Iterable[str]) -> list[Opening]:
    """From where SSH may be reached.

    Raises:
        SpecError: nothing is named (then nobody could log in), or the world is.
    """
    openings = [Opening(port, host_route(network), "you") for network in networks]
    if not openings:
        raise SpecError("ssh_from: names no network", next_step="ssh_from: auto, or your own network")
    for opening in openings:
        if ipaddress.IPv4Network(opening.cidr, strict=False).prefixlen == 0:
            raise SpecError(
                f"ssh_from: {opening.cidr} opens SSH to the world", next_step="name your own network, or auto"
            )
    return openings


def endpoint_host(member: Member) -> str | None:
    """The server's IPv4 address in a participant's kit; None where it has a name, or none yet."""
    from startup_kits.kit import Kit

    host = (Kit.open(member.kit).endpoint().server or "").rpartition(":")[0]
    return host if is_address(host) else None


def cidrs(openings: Iterable[Opening], port: int) -> tuple[str, ...]:
    """The networks that may reach `port`, in the order of their addresses."""
    unique = {opening.cidr for opening in openings if opening.port == port}
    return tuple(sorted(unique, key=lambda text: ipaddress.IPv4Network(text, strict=False)))


def fitted(
    ssh: tuple[str, ...], runtime: tuple[str, ...], most: int = MAX_RULES
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both ports' networks; where they are more than `most`, neighbours are joined into one network.

    Joined networks let in exactly the same addresses. As long as everything fits nothing is joined, so that one site
    more or less touches one rule. What does not fit even so is refused where the stack's arguments are checked.
    """
    if len(ssh) + len(runtime) <= most:
        return ssh, runtime
    return _joined(ssh), _joined(runtime)


def _joined(networks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(one) for one in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, networks)))


def check_cidr(text: str) -> str:
    """A network that a user typed, in its usual form.

    Raises:
        SpecError: it is none, or it is (nearly) the world.
    """
    try:
        network = ipaddress.IPv4Network(host_route(text), strict=True)
    except ValueError as error:
        raise SpecError(f"{text!r} is no IPv4 network", why=str(error), next_step="write it like 52.1.2.3/32") from None
    if network.prefixlen < 8:
        raise SpecError(f"{text} opens the server's port to the world", next_step="name the site's own addresses")
    return str(network)


def is_address(text: str) -> bool:
    """Whether it is one IPv4 address, and not a name."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
