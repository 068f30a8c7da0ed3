"""The listeners before a machine: one for each port that the rules open, and only for those who may come.

They stand for the cloud's security group. A source without a permission is accepted by the kernel (a listener can't
choose) and reset at once; a real cloud would let it wait. Ports without any permission are not listened on.
Of a wide rule only those ports are listened on that somebody on the machine listens on: looked at twice a second.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable

from deployer.sandbox.machines.setup import Network
from deployer.sandbox.machines.splice import dial, listener, reset, splice
from deployer.sandbox.model import Rule

_RETRY_S = 0.5


def admits(rules: Iterable[Rule], source: str, port: int) -> bool:
    """Whether the rules let `source` (as the world sees it) come to TCP `port`. A rule without a valid CIDR is none."""
    address = ipaddress.ip_address(source)
    for rule in rules:
        first, last = rule.span
        if not rule.allows_tcp or not first <= port <= last or rule.source is None:
            continue
        if address in ipaddress.ip_network(rule.source):
            return True
    return False


def open_ports(rules: Iterable[Rule], used: Iterable[int]) -> set[int]:
    """The ports to listen on: all of narrow rules, of wide ones those that the machine uses."""
    rules = [rule for rule in rules if rule.allows_tcp]
    ports: set[int] = set()
    for rule in rules:
        if not rule.is_wide:
            ports |= set(range(rule.span[0], rule.span[1] + 1))
    for rule in rules:
        ports |= {port for port in used if rule.span[0] <= port <= rule.span[1]}
    return ports


def used_ports(address: str) -> set[int]:
    """The TCP ports that somebody listens on at `address` (Linux; elsewhere none are known)."""
    # The kernel prints the address as a number in the machine's byte order.
    wanted = f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"
    ports = set()
    try:
        with open("/proc/net/tcp") as table:
            for line in table:
                fields = line.split()
                if len(fields) > 3 and fields[3] == "0A" and fields[1].startswith(wanted):
                    ports.add(int(fields[1].partition(":")[2], 16))
    except OSError:
        return ports
    return ports


class Front:
    """A machine's public side. Use from one event loop only."""

    def __init__(self, bind: str, network: Network, told: Callable[[], None] = lambda: None) -> None:
        self._bind = bind
        self._told = told  # called when the open ports changed by themselves
        self._network = network
        self._address: str | None = None
        self._rules: tuple[Rule, ...] = ()
        self._listeners: dict[int, socket.socket] = {}
        self._acceptors: dict[int, asyncio.Task[None]] = {}
        self._connections: dict[asyncio.Task[None], tuple[str, int]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._used: set[int] = set()
        self.problems: dict[int, str] = {}  # port -> why it can't be listened on

    @property
    def ports(self) -> list[int]:
        return sorted(self._listeners)

    def apply(self, address: str | None, rules: tuple[Rule, ...], network: Network) -> None:
        """Makes the listeners what they have to be. Connections that the rules still allow are not touched; those
        that they no longer allow are cut. With another address everything is."""
        if address != self._address:
            self.close()
            self._address = address
        self._rules, self._network = rules, network
        wide = address is not None and any(rule.is_wide for rule in rules)
        self._used = used_ports(self._bind) if wide else set()
        wanted = open_ports(rules, self._used) if address else set()
        for port in set(self._listeners) - wanted:
            self._shut(port)
        for port in list(self.problems):
            if port not in wanted:
                del self.problems[port]
        for port in sorted(wanted - set(self._listeners)):
            self._listen(port)
        for task, (source, port) in list(self._connections.items()):
            if not admits(rules, network.seen_as(source), port):
                task.cancel()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.problems or wide:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._look_again)

    def _look_again(self) -> None:
        # The address may just be passing from a machine that is still shutting down; and with a rule that opens
        # everything, what is open depends on what the machine does.
        self._retry = None
        if self.problems or used_ports(self._bind) != self._used:
            self.apply(self._address, self._rules, self._network)
            self._told()
        else:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._look_again)

    def _listen(self, port: int) -> None:
        if self._address is None:
            return
        try:
            sock = listener(self._address, port)
        except OSError as error:
            self.problems[port] = f"{self._address}:{port}: {error.strerror}"
            return
        self.problems.pop(port, None)
        self._listeners[port] = sock
        self._acceptors[port] = asyncio.ensure_future(self._accept(sock, port))

    def _shut(self, port: int) -> None:
        self._acceptors.pop(port).cancel()
        sock = self._listeners.pop(port)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    async def _accept(self, sock: socket.socket, port: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, peer = await loop.sock_accept(sock)
            except OSError:
                await asyncio.sleep(0.1)  # out of file descriptors, or the client has gone already
                continue
            source = str(peer[0])
            if not admits(self._rules, self._network.seen_as(source), port):
                reset(client)
                continue
            task = asyncio.ensure_future(self._serve(client, source, port))
            self._connections[task] = (source, port)
            task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _serve(self, client: socket.socket, source: str, port: int) -> None:
        try:
            # The machine sees whom it talks to: any address in 127.0.0.0/8 may be the source of a connection.
            inner = await dial(source, (self._bind, port))
        except (OSError, asyncio.TimeoutError):
            reset(client)  # nobody listens inside
            return
        except BaseException:
            reset(client)
            raise
        await splice(client, inner)

    def close(self) -> None:
        """Stops listening and cuts all connections."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for port in list(self._listeners):
            self._shut(port)
        for task in list(self._connections):
            task.cancel()
        self.problems.clear()
