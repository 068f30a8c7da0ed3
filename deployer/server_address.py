"""The server's address in every kit here: a hint in the unsigned `local/endpoint.yml`. Identity is the certificate."""

from __future__ import annotations

import socket
from pathlib import Path

from deployer.deployment import Deployment
from deployer.ledger import NOTHING_THERE
from startup_kits.kit import Kit


def server_endpoint(deployment: Deployment, addresses: dict[str, str]) -> str | None:
    """`HOST:PORT` under which the server can be reached, as far as it is known.

    The spec's host name where it leads to the server's address (or where the address is not ours to know), else the
    address itself.
    """
    server = deployment.server
    if server is None or server.port is None:
        return None
    kit = Kit.open(server.kit)
    row = deployment.ledger.participant("server")
    address = addresses.get("server") or (server.host if server.target == "host" else None)
    if address is None and row is not None and row.phase not in NOTHING_THERE:
        address = row.address
    if kit.hostname and (address is None or leads_to(kit.hostname, address)):
        return f"{kit.hostname}:{server.port}"
    return f"{address}:{server.port}" if address else None


def leads_to(hostname: str, address: str) -> bool:
    """Whether a name resolves to an address (among others)."""
    try:
        found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return address in {str(entry[4][0]) for entry in found}


def write_endpoints(deployment: Deployment, endpoint: str) -> list[str]:
    """Write the server's address into all kits here, the admins' too; returns the names of those that changed."""
    proxies = {member.kit: member.proxy for member in deployment.members.values() if member.proxy}
    members = {member.kit for member in deployment.members.values() if member.role != "server"}
    folders = [*members, *(path for path in _beside(members) if path not in members)]
    changed = []
    for folder in sorted(folders):
        if not (folder / "startup").is_dir():
            continue
        kit = Kit.open(folder)
        proxy = proxies.get(folder)
        now = kit.endpoint()
        if kit.role != "server" and (now.server != endpoint or (proxy and now.proxy != proxy)):
            kit.set_endpoint(endpoint, proxy)
            changed.append(kit.name)
    return changed


def _beside(folders: set[Path]) -> list[Path]:
    """Kits that lie beside these: the admins', and those of sites that left the spec."""
    parents = {folder.parent for folder in folders}
    return [path for parent in parents if parent.is_dir() for path in parent.iterdir() if path.is_dir()]
