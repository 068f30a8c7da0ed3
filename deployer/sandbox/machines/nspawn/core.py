"""The network between the machines of one sandbox: a bridge in a namespace of its own, and this computer's link to it.

Public addresses are a /23 of 198.18.0.0/15, which belongs to nobody (RFC 2544, for benchmarks) and is routed nowhere
but here. This computer is 198.51.100.10 on the link, as all rules know it; nothing else of it is on the bridge, nothing
is forwarded by it, and neither its packet filter nor its settings change.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.machines.nspawn import tools
from deployer.sandbox.state import WORKSTATION

SPACE = ipaddress.IPv4Network("198.18.0.0/15")
_RESERVED = 16
BRIDGE = "cloud"
NOTE = "nspawn.json"
"""In the sandbox's home: which namespace is its own, for whoever sweeps up after a kill."""


class NoNetwork(Exception):
    """No block of addresses is free, or the kernel lacks what a bridge needs."""


class Core:
    """One sandbox's network. Make it by `take`."""

    def __init__(self, name: str, block: ipaddress.IPv4Network, note: Path) -> None:
        self.name, self.block, self._note = name, block, note
        self.public = AddressPool(str(block), _RESERVED)
        self._claimed = {WORKSTATION}

    @classmethod
    def take(cls, home: Path) -> Core:
        """A free block and its namespace; the same home gets the same one whenever that is free.

        Raises:
            NoNetwork: there is none.
        """
        problem = ""
        for name, block in _candidates(str(home)):
            try:
                tools.call(["ip", "netns", "add", name])
            except OSError as error:
                if "File exists" in str(error):
                    continue
                raise NoNetwork(str(error)) from error
            core = cls(name, block, home / NOTE)
            core._note.write_text(json.dumps({"namespace": name}))
            try:
                core._build()
            except OSError as error:
                remove(home)
                problem = str(error)
                if "File exists" in problem:  # somebody else's route
                    continue
                raise NoNetwork(problem) from error
            return core
        raise NoNetwork(problem or f"every block of {SPACE} is taken: `ip netns list` shows by whom")

    def _build(self) -> None:
        # Nothing in there speaks IPv6: what can't be reached need not be filtered.
        no_ipv6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
        tools.call(["ip", "netns", "exec", self.name, "sh", "-c", f"test ! -e {no_ipv6} || echo 1 > {no_ipv6}"])
        tools.batch([f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up"], self.name)
        tools.batch([f"link add {self.name} type veth peer name host netns {self.name}"])
        tools.batch([f"link set host master {BRIDGE}", "link set host up"], self.name)
        tools.batch(
            [
                f"link set {self.name} up",
                f"address add {WORKSTATION}/32 dev {self.name}",
                f"route add {self.block} dev {self.name} src {WORKSTATION}",
            ]
        )

    def claim(self, world: str) -> str:
        """Makes a world address one that programs of this computer can come from; answers it."""
        if world not in self._claimed:
            tools.batch([f"address add {world}/32 dev {self.name}"])
            self._claimed.add(world)
        return world


def _candidates(seed: str) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    blocks = list(SPACE.subnets(new_prefix=23))
    start = zlib.crc32(seed.encode()) % len(blocks)
    for i in range(len(blocks)):
        number = (start + i) % len(blocks)
        yield f"fedspan-{number:02x}", blocks[number]


def remove(home: Path) -> None:
    """Removes the network of a home's sandbox, if one is left: its namespace, and with it bridge, links and route."""
    try:
        name = str(json.loads((home / NOTE).read_text())["namespace"])
    except (OSError, ValueError, KeyError):
        return
    with contextlib.suppress(OSError):
        tools.call(["ip", "link", "delete", name])
    with contextlib.suppress(OSError):
        tools.call(["ip", "netns", "delete", name])
    (home / NOTE).unlink(missing_ok=True)
