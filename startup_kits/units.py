"""Sizes with units, addresses and names: the small grammar of federation.yml."""

from __future__ import annotations

import contextlib
import ipaddress
import re

#: Federations, servers and sites: also valid as DNS labels and as prefixes of cloud resource names.
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
#: Admins are named by e-mail address. Deliberately plain: it becomes a folder name and a certificate's subject.
EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*")

_UNITS = {"MB": 1 / 1024, "MIB": 1 / 1024, "GB": 1.0, "GIB": 1.0, "TB": 1024.0, "TIB": 1024.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
#: No job for so long, in seconds, and a machine may turn itself off: it must outlive the pause between two jobs, and
#: what is idle for a month needs no timer.
SHORTEST_IDLE_S, LONGEST_IDLE_S = 300, 30 * 86400


def gib(value: object) -> float:
    """A size such as `16GB`, `100 GiB` or `1TB`, in GiB (GB is read as GiB, as clouds' price lists do).

    Raises:
        ValueError: it is no such size.
    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(f"a size with a unit is wanted, such as 16GB or 1TB, not {value!r}")
    size = float(match[1]) * _UNITS[match[2].upper()]
    if size <= 0:
        raise ValueError(f"a size above zero is wanted, not {value!r}")
    return size


def idle_time(value: object) -> int:
    """How long a machine may be idle, such as `30m`, `2h` or `3d`, in seconds.

    Raises:
        ValueError: it is no such time, or outside 5 minutes to 30 days.
    """
    match = re.fullmatch(r"(\d{1,6})([mhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"a time with a unit is wanted, such as 30m, 2h or 3d, not {value!r}")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not SHORTEST_IDLE_S <= seconds <= LONGEST_IDLE_S:
        raise ValueError(f"5 minutes to 30 days (5m to 30d) are possible, not {value!r}")
    return seconds


def cidr(value: object) -> str:
    """An IPv4 address or network, in canonical CIDR form (`203.0.113.7` becomes `203.0.113.7/32`).

    Raises:
        ValueError: it is none, or has bits set behind its prefix.
    """
    if not isinstance(value, str):
        raise ValueError(f"an address such as 203.0.113.7/32 is wanted, not {value!r}")
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv4Network(value))
    try:
        wide = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f"an IPv4 address or network such as 203.0.113.7/32 is wanted, not {value!r}") from None
    raise ValueError(f"{value} has bits set behind its prefix; did you mean {wide}?")


def is_world(network: str) -> bool:
    """Whether a canonical CIDR lets in (almost) everybody: prefixes under /8."""
    return ipaddress.IPv4Network(network).prefixlen < 8


def host_name(value: object) -> str:
    """A DNS name or IPv4 address.

    Raises:
        ValueError: it is neither.
    """
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if not isinstance(value, str) or len(value) > 253 or not re.fullmatch(rf"{label}(?:\.{label})*", value):
        raise ValueError(f"a host name or address is wanted, not {value!r}")
    return value.lower()


_HOP = re.compile(r"(?:[A-Za-z_][\w.-]{0,31}@)?(?:[A-Za-z0-9][\w.-]*)(?::(\d{1,5}))?")


def jump(value: str) -> str:
    """Jump hosts as `ssh -J` takes them: `ana@bastion.example:22`, several with commas between.

    Raises:
        ValueError: one of them is none.
    """
    for word in value.split(","):
        match = _HOP.fullmatch(word)
        if match is None or not 1 <= int(match[1] or 22) <= 65535:
            raise ValueError(f"{word!r} is no jump host; write it like ana@bastion.hospital-a.example:22")
    return value


def host_key(value: str) -> str:
    """How a host's SSH key is trusted: `ask`, `accept-new`, or the public key in one line.

    Raises:
        ValueError: it is none of these.
    """
    key = r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,}={0,3}(?: [^\n]*)?"
    if value in ("ask", "accept-new") or re.fullmatch(key, value):
        return value
    raise ValueError("ask, accept-new, or the host's public key in one line (ssh-ed25519 AAAA…)")


def proxy(value: str) -> str:
    """An HTTP proxy on the way to the server, `http://proxy.hospital-a.example:3128`; without a password.

    Raises:
        ValueError: it is none, or has a password, which does not belong into this file.
    """
    if "@" in value:
        raise ValueError("a password does not belong into this file; write it into the kit's local/endpoint.yml there")
    if not re.fullmatch(r"http://[A-Za-z0-9][A-Za-z0-9.-]*:\d{1,5}/?", value):
        raise ValueError("an HTTP proxy's URL with its port is wanted, such as http://proxy.hospital-a.example:3128")
    return value.rstrip("/")
