"""Machines of the nspawn driver, set up by the stacks' own user-data and looked at from all sides."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import paramiko
from machine_lab import HOST_PRIVATE, HOST_PUBLIC, LOGIN_PUBLIC, Lab, run
from waiting import until

from deployer.sandbox.model import Rule
from stacks.args import HostKey, ParticipantArgs
from stacks.cloud_init import user_data

SSH = 22
WORKSTATION = "198.51.100.10/32"
SSH_RULE = Rule(SSH, SSH, "tcp", WORKSTATION)


def stack_user_data(cloud: str = "aws", participant: str = "site-1") -> str:
    """What a stack gives its machine."""
    aws = cloud == "aws"
    return user_data(
        ParticipantArgs(
            federation="digits",
            deployment="d1",
            participant=participant,
            role="site",
            owner="lead@hospital-a.example",
            region="eu-central-1" if aws else "westeurope",
            size="m7i.large" if aws else "Standard_D4s_v5",
            ssh_ingress=(WORKSTATION,),
            public_key=LOGIN_PUBLIC,
            host_key=HostKey(private=HOST_PRIVATE, public=HOST_PUBLIC),
        )
    )


@dataclass
class Guest:
    """One machine and a login on it."""

    lab: Lab
    machine: dict[str, Any]
    client: paramiko.SSHClient

    @property
    def address(self) -> str:
        return str(self.machine["public_ip"])

    def sh(self, command: str, check: bool = True) -> str:
        status, out, err = run(self.client, command)
        assert status == 0 or not check, f"{command}: {status}\n{out.decode()}\n{err.decode()}"
        return out.decode().strip()

    def python(self, program: str) -> str:
        """Runs a program with the machine's own interpreter."""
        status, out, err = run(self.client, "python3 -", program.encode())
        assert status == 0, err.decode()
        return out.decode().strip()

    def booted(self) -> Guest:
        self.sh("cloud-init status --wait")
        return self


class NspawnLab(Lab):
    """As `Lab`, at sshd's own port."""

    def login(self, machine: dict[str, Any], user: str = "fedspan") -> Guest:
        """Logs in as soon as the machine lets."""
        connection = until(lambda: self._try(machine, user), what=f"SSH at {machine['public_ip']}")
        return Guest(self, machine, connection)

    def _try(self, machine: dict[str, Any], user: str) -> paramiko.SSHClient | None:
        try:
            return self.ssh(machine, user, port=SSH)
        except (OSError, EOFError, paramiko.SSHException):
            return None

    def guest(self, user: str = "fedspan", data: str | None = None, **changes: Any) -> Guest:
        """A new machine, booted to the end."""
        changes.setdefault("ingress", (SSH_RULE,))
        machine = self.boot(stack_user_data() if data is None else data, **changes)
        return self.login(machine, user).booted()

    def seen(self, id: str) -> dict[str, Any]:
        return next(machine for machine in self.machines.driver.machines() if machine["id"] == id)


def answers(address: str, port: int, seconds: float = 1.0) -> str:
    """What somebody here sees of a port: open, refused, or nothing."""
    with socket.socket() as probe:
        probe.settimeout(seconds)
        try:
            probe.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "nothing"
    return "open"


LISTEN = """
import os, socket, time
ports = {ports}
servers = [socket.create_server(("", port)) for port in ports]
if os.fork() == 0:
    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    time.sleep(600)
"""

PROBE = """
import socket
for address, port in {targets}:
    probe = socket.socket()
    probe.settimeout(1.5)
    try:
        probe.connect((address, port))
        print("open")
    except ConnectionRefusedError:
        print("refused")
    except OSError as error:
        print("nothing" if "timed out" in str(error) else error.strerror)
"""
