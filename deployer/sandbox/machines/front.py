"""The listeners before a machine: one for each port that the rules open, and only for those who may come.

They stand for the cloud's security group. A source without a permission is accepted by the kernel (a listener can't
choose) and reset at once; a real cloud would let it wait. Ports without any permission are not listened on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

from deployer.sandbox.machines.setup import Network
from deployer.sandbox.machines.splice import dial, listener, reset, splice
from deployer.sandbox.model import Rule

# A rule over more ports than this opens only those that the machine is known to use.
_WIDE = 64
_RETRY_S = 0.25


def admits(rules: Iterable[Rule], source: str, port: int) -> bool:
    """Whether the rules let `source` (as the world sees it) come to TCP `port`. A rule without a valid CIDR is none."""
    address = ipaddress.ip_address(source)
    for rule in rules:
        if not rule.allows_tcp or not _from(rule) <= port <= _to(rule):
            continue
        cidr = "0.0.0.0/0" if rule.cidr in ("*", "Internet", "Any") else rule.cidr  # Azure's words
        try:
            if address in ipaddress.ip_network(cidr, strict=False):
                return True
        except ValueError:
            continue
    return False


def _from(rule: Rule) -> int:
    return 1 if rule.protocol == "-1" or rule.port_from < 1 else rule.port_from


def _to(rule: Rule) -> int:
    return 65535 if rule.protocol == "-1" or rule.port_to < 1 else rule.port_to


def open_ports(rules: Iterable[Rule], known: Iterable[int]) -> set[int]:
    """The ports to listen on: all of narrow rules, of wide ones only what some narrow rule or `known` names."""
    rules = [rule for rule in rules if rule.allows_tcp]
    ports: set[int] = set()
    for rule in rules:
        if _to(rule) - _from(rule) < _WIDE:
            ports |= set(range(_from(rule), _to(rule) + 1))
    for rule in rules:
        ports |= {port for port in known if _from(rule) <= port <= _to(rule)}
    return ports


class Front:
    """A machine's public side. Use from one event loop only."""

    def __init__(self, bind: str, network: Network) -> None:
        self._bind = bind
        self._network = network
        self._address: str | None = None
        self._rules: tuple[Rule, ...] = ()
        self._listeners: dict[int, socket.socket] = {}
        self._acceptors: dict[int, asyncio.Task[None]] = {}
        self._connections: dict[asyncio.Task[None], tuple[str, int]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._known: tuple[int, ...] = ()
        self.problems: dict[int, str] = {}  # port -> why it can't be listened on

    @property
    def ports(self) -> list[int]:
        return sorted(self._listeners)

    def apply(self, address: str | None, rules: tuple[Rule, ...], known: Iterable[int], network: Network) -> None:
        """Makes the listeners what they have to be. Connections that the rules still allow are not touched; those
        that they no longer allow are cut. With another address everything is."""
        if address != self._address:
            self.close()
            self._address = address
        self._rules, self._network, self._known = rules, network, tuple(known)
        wanted = open_ports(rules, self._known) if address else set()
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
        if self.problems:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        # The address may just be passing from a machine that is still shutting down.
        self._retry = None
        self.apply(self._address, self._rules, self._known, self._network)

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
