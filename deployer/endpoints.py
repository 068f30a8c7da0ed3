"""`HOST:PORT` as people type it. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
import re

from deployer.errors import UsageError

_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def checked_endpoint(text: str) -> str:
    """The same text, once it is a host (name, IPv4, or IPv6 in brackets) and a port.

    Raises:
        UsageError: it is not.
    """
    host, _, port = text.strip().rpartition(":")
    if port.isdecimal() and 1 <= int(port) <= 65535:
        if host.startswith("[") and host.endswith("]"):
            with contextlib.suppress(ValueError):
                ipaddress.IPv6Address(host[1:-1])
                return text.strip()
        elif _HOST.fullmatch(host):
            return text.strip()
    raise UsageError(
        f"{text} is not HOST:PORT", next_step="--server fl.hospital-a.example:8002, or --server 52.1.2.3:8002"
    )
