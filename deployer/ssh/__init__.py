"""SSH to the machines of a deployment: pinned host keys, bounded retry, argv, byte streams.

with connect(address, 22, "fedspan", key_path, known_hosts, name="site-1") as machine:
    machine.run(["uname", "-a"], on_line=lambda stream, line: print(line))
    machine.put_tree(Path("kits/site-1"), machine.path("/opt/fedspan/kit"))
"""

from __future__ import annotations

from deployer.ssh.connect import scan_host_key
from deployer.ssh.machine import Machine, connect
from deployer.ssh.pins import (
    HostKeyPin,
    fingerprint,
    forget_host_key,
    pin_host_key,
    read_pins,
)
from deployer.ssh.session import Completed, Session

__all__ = [
    "Completed",
    "HostKeyPin",
    "Machine",
    "Session",
    "connect",
    "fingerprint",
    "forget_host_key",
    "pin_host_key",
    "read_pins",
    "scan_host_key",
]
