"""Machines of the process driver, reached as a user reaches them: by SSH and TCP at their public address."""

from __future__ import annotations

import io
import itertools
import socket
from dataclasses import dataclass, field
from typing import Any

import asyncssh
import paramiko
import yaml

from deployer.sandbox.machines.standalone import Machines
from deployer.sandbox.model import MachineSpec, Rule

PORT = 2222
_numbers = itertools.count(1)


def new_key() -> tuple[str, str]:
    """(private, public) in OpenSSH's format."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key().decode(), key.export_public_key().decode().strip()


LOGIN_PRIVATE, LOGIN_PUBLIC = new_key()
HOST_PRIVATE, HOST_PUBLIC = new_key()


def user_data(**changes: Any) -> str:
    """Cloud-config of a machine that the login key opens; a change to None leaves that part out."""
    config = {
        "users": [{"name": "fedspan", "ssh_authorized_keys": [LOGIN_PUBLIC]}],
        "ssh_keys": {"ed25519_private": HOST_PRIVATE, "ed25519_public": HOST_PUBLIC},
        "write_files": [{"path": "/etc/ssh/sshd_config.d/10-port.conf", "content": f"Port {PORT}\n"}],
        **changes,
    }
    return "#cloud-config\n" + yaml.safe_dump({k: v for k, v in config.items() if v is not None})


def mounting() -> str:
    """Cloud-config that also mounts the state volume."""
    return user_data(mounts=[["LABEL=fedspan-state", "/var/lib/fedspan", "ext4", "defaults,nofail"]])


@dataclass
class Lab:
    """A driver under test and the connections to its machines."""

    machines: Machines
    clients: list[paramiko.SSHClient] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def boot(self, data: str | None = None, **changes: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": f"i-{next(_numbers)}",
            "cloud": "aws",
            "account": "111111111111",
            "region": "eu-central-1",
            "zone": "eu-central-1a",
            "size": "m7i.large",
            "running": True,
            "user_data": user_data() if data is None else data,
            "public_ip": self.machines.address(),
            "private_ip": "10.0.0.4",
            "ingress": (Rule(PORT, PORT, "tcp", "198.51.100.10/32"),),
            "tags": {"fedspan:participant": "site-1"},
            **changes,
        }
        self.made.append(fields["id"])
        return self.machines.put(MachineSpec(**fields))

    def ssh(
        self, machine: dict[str, Any], user: str = "fedspan", private: str = LOGIN_PRIVATE, port: int = PORT
    ) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        self.clients.append(client)
        client.connect(
            machine["public_ip"],
            port,
            user,
            pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(private)),
            allow_agent=False,
            look_for_keys=False,
            timeout=60,
            banner_timeout=60,
            auth_timeout=60,
        )
        return client

    def close(self) -> None:
        while self.clients:
            self.clients.pop().close()
        self.machines.remove(*self.made)


def run(client: paramiko.SSHClient, command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    """(exit status, stdout, stderr) of a command."""
    stdin, stdout, stderr = client.exec_command(command, timeout=60)
    if data:
        stdin.write(data)
    stdin.channel.shutdown_write()
    out, err = stdout.read(), stderr.read()
    return stdout.channel.recv_exit_status(), out, err


def proxied(proxy: str, address: str, port: int) -> tuple[socket.socket, bytes]:
    """A connection through a CONNECT proxy and the proxy's answer."""
    host, _, proxy_port = proxy.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(proxy_port)), timeout=60)
    sock.sendall(f"CONNECT {address}:{port} HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = sock.recv(1)
        if not chunk:
            break
        head += chunk
    return sock, head
