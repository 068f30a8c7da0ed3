"""The sandbox's view of the world outside the clouds: this workstation, hospitals behind NAT, machines without a cloud.

A *world address* (203.0.113.7, say) is what firewall rules name. Here it is the name of a loopback source: whoever
connects from that loopback address is, to every rule, at the world address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.machines.egress import Egress
from deployer.sandbox.model import MachineSpec, Rule
from deployer.sandbox.state import WORKSTATION


@dataclass(frozen=True)
class Exit:
    """A way out for programs of this workstation that play a hospital behind NAT."""

    world: str
    source: str
    url: str


class World:
    """World addresses and cloudless machines of one sandbox. Thread-safe. `changed` is called after each change."""

    def __init__(
        self, public: AddressPool, changed: Callable[[], None], claim: Callable[[str], str] | None = None
    ) -> None:
        """`claim` makes a world address one that this computer's programs can come from, where machines have a network
        of their own; without it a loopback address stands for it, and for this workstation 127.0.0.1 does."""
        self._public = public
        self._claim = claim
        self._changed = changed
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world", daemon=True)
        self._thread.start()
        self._exits: dict[str, Exit] = {}
        self._egresses: dict[str, Egress] = {}
        self._hosts: dict[str, MachineSpec] = {}
        self._host_world: dict[str, str] = {}

    def map(self) -> dict[str, str]:
        """Loopback source -> world address."""
        with self._lock:
            exits = {exit.source: exit.world for exit in self._exits.values()}
            workstation = "127.0.0.1" if self._claim is None else WORKSTATION
            return {workstation: WORKSTATION, **exits, **self._host_world}

    def exits(self) -> list[Exit]:
        with self._lock:
            return list(self._exits.values())

    def exit(self, world: str) -> Exit:
        """The CONNECT proxy whose connections seem to come from `world`. The same address gets the same proxy.

        Raises ValueError for what is no IPv4 address of the world outside.
        """
        address = world_address(world)
        with self._lock:
            if address not in self._exits:
                source = self._claim(address) if self._claim else self._public.allocate(f"on premises, {address}")
                allowed = str(self._public.network)

                async def open_egress() -> Egress:
                    egress = Egress(source, allowed)
                    egress.use_source(source)
                    return egress

                egress = asyncio.run_coroutine_threadsafe(open_egress(), self._loop).result(10)
                self._egresses[address] = egress
                self._exits[address] = Exit(address, source, egress.url)
            found = self._exits[address]
        self._changed()
        return found

    def hosts(self) -> list[MachineSpec]:
        with self._lock:
            return list(self._hosts.values())

    def host(self, name: str, user_data: str, egress: str | None) -> str:
        """A machine without a cloud; its address. The same name means the same machine: its keys don't change."""
        world = world_address(egress) if egress else None
        with self._lock:
            if name not in self._hosts:
                address = self._public.allocate(f"host {name}")
                self._hosts[name] = MachineSpec(
                    id=f"host-{name}",
                    cloud="host",
                    account="",
                    region="on premises",
                    zone=None,
                    size="host",
                    running=True,
                    user_data=user_data,
                    public_ip=address,
                    private_ip=address,
                    ingress=(Rule(1, 65535, "tcp", "0.0.0.0/0"),),
                    tags={"fedspan:participant": name},
                )
            spec = self._hosts[name]
            assert spec.public_ip is not None
            if world:
                self._host_world[spec.public_ip] = world
        self._changed()
        return spec.public_ip

    def remove_host(self, name: str) -> bool:
        with self._lock:
            spec = self._hosts.pop(name, None)
            if spec is not None and spec.public_ip is not None:
                self._host_world.pop(spec.public_ip, None)
                self._public.release(spec.public_ip)
        self._changed()
        return spec is not None

    def close(self) -> None:
        def shut() -> None:
            for egress in self._egresses.values():
                egress.close()
            self._loop.call_soon(self._loop.stop)

        self._loop.call_soon_threadsafe(shut)
        self._thread.join(5)


def world_address(text: str) -> str:
    """A checked IPv4 address outside of this computer."""
    address = ipaddress.IPv4Address(text.removesuffix("/32"))
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text} is no address of the world outside: take one that your rules name, like 203.0.113.7")
    return str(address)


def host_user_data(user: str, public_key: str, ssh_port: int) -> str:
    """Cloud-config of a machine that somebody set up by hand: an account that may become root, its key, sshd's port."""
    import yaml

    config: Mapping[str, object] = {
        "users": [{"name": user, "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [public_key.strip()]}],
        "write_files": [{"path": "/etc/ssh/sshd_config.d/10-port.conf", "content": f"Port {ssh_port}\n"}],
    }
    return "#cloud-config\n" + str(yaml.safe_dump(config))
