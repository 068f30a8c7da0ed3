"""A machine's way out: an HTTP CONNECT proxy whose connections come from the machine's public address.

gRPC can't choose its source address, a proxy can. Only addresses of this sandbox are reached: nothing leaves the
computer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket

from deployer.sandbox.machines.splice import dial, listener, reset, splice

_MAX_HEAD = 16 * 1024
_HEAD_S = 20.0
_CONNECT = re.compile(rb"CONNECT ([^\s:]+):(\d{1,5}) HTTP/1\.[01]\r?\n")


class Egress:
    """A CONNECT proxy on `address` (a port of its own). Use from one event loop only."""

    def __init__(self, address: str, allowed: str) -> None:
        self._sock = listener(address, 0)
        self._allowed = ipaddress.ip_network(allowed)
        self._connections: set[asyncio.Task[None]] = set()
        self._source: str | None = None
        self._acceptor = asyncio.ensure_future(self._accept())

    @property
    def url(self) -> str:
        host, port = self._sock.getsockname()
        return f"http://{host}:{port}"

    def use_source(self, source: str | None) -> None:
        """From now on connections come from `source`; None: the machine has no public address and gets nowhere."""
        if source != self._source:
            self._source = source
            for task in list(self._connections):
                task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._sock)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            task = asyncio.ensure_future(self._serve(client))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, client: socket.socket) -> None:
        try:
            # A shield-less wait: who says nothing for _HEAD_S seconds is cut off.
            head, rest = await asyncio.wait_for(_read_head(client), _HEAD_S)
            match = _CONNECT.match(head)
            if match is None:
                await _answer(client, b"405 Only CONNECT", b"This proxy knows CONNECT HOST:PORT only.\n")
                return
            host, port = match[1].decode("ascii", "replace"), int(match[2])
            if (refusal := self._refusal(host, port)) is not None:
                await _answer(client, b"403 Outside", refusal.encode())
                return
            try:
                inner = await dial(self._source, (host, port))
            except (OSError, asyncio.TimeoutError) as error:
                await _answer(client, b"502 Unreachable", f"{host}:{port}: {error}\n".encode())
                return
            try:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
                if rest:
                    await loop.sock_sendall(inner, rest)
            except BaseException:
                inner.close()
                raise
        except (OSError, asyncio.TimeoutError, ValueError):
            reset(client)
            return
        except BaseException:
            reset(client)
            raise
        await splice(client, inner)

    def _refusal(self, host: str, port: int) -> str | None:
        if self._source is None:
            return "this machine has no public address: it reaches nobody\n"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return f"{host}: a sandbox has no names, only addresses\n"
        if address not in self._allowed or not 0 < port < 65536:
            return f"{host}:{port} is not in this sandbox ({self._allowed}): nothing leaves it\n"
        return None

    def close(self) -> None:
        self._acceptor.cancel()
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        for task in list(self._connections):
            task.cancel()


async def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    loop = asyncio.get_running_loop()
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > _MAX_HEAD:
            raise ValueError("head too long")
        chunk = await loop.sock_recv(client, 4096)
        if not chunk:
            raise ValueError("ended within its head")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n", rest


async def _answer(client: socket.socket, status: bytes, text: bytes) -> None:
    head = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, head % (status, len(text)) + text)
    client.shutdown(socket.SHUT_WR)
    client.close()
