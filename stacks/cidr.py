"""IPv4 networks as rules take them: in their usual form, and never the world. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from stacks.errors import StackArgumentError

WIDEST_PREFIX = 8
"""A source wider than this many fixed bits (a /8) counts as the world."""


def check_cidr(value: str, where: str, participant: str | None = None) -> str:
    """Return `value` if it is an IPv4 network in its canonical form and not the world, else raise."""
    if ":" in value:
        raise StackArgumentError(where, f"{value} is IPv6; machines have IPv4 addresses only", participant=participant)
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise StackArgumentError(
            where, f"{value!r} is no IPv4 network", participant=participant, next_step="write it like 203.0.113.7/32"
        ) from None
    if network.prefixlen < WIDEST_PREFIX:
        raise StackArgumentError(
            where,
            f"{value} opens a port to the world",
            participant=participant,
            next_step="name the addresses that need it, for example 203.0.113.7/32",
        )
    if str(network) != value:
        right = f"{value}/32" if "/" not in value else f"{network} or {value.split('/')[0]}/32"
        raise StackArgumentError(where, f"{value} is not in the usual form", participant=participant, next_step=right)
    return value


def cidrs(values: Iterable[str]) -> tuple[str, ...]:
    """Bare addresses become /32, repetitions vanish, the order is by address: what `ssh_ingress` and its like take."""
    unique = {f"{value}/32" if "/" not in value and ":" not in value else value for value in values}
    for value in unique:
        check_cidr(value, "cidr")
    return tuple(sorted(unique, key=lambda text: ipaddress.IPv4Network(text)))
