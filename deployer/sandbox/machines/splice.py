"""Joins two sockets: what one says the other hears, until both have said all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

_BUFFER = 512 * 1024
_BACKLOG = 128


def listener(address: str, port: int) -> socket.socket:
    """A non-blocking listening TCP socket. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


async def dial(source: str | None, target: tuple[str, int], timeout: float = 10.0) -> socket.socket:
    """A connection to `target` that comes from the address `source`. Raises OSError or asyncio.TimeoutError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            # Ports are chosen when connecting, not when binding: two connections to different targets may share one.
            option = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, option, 1)
            sock.bind((source, 0))
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, target), timeout)
    except BaseException:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """Closes with a reset, so that the other side reads "connection reset" and not a polite end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    while count := await loop.sock_recv_into(source, view):
        await loop.sock_sendall(sink, view[:count])
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


async def splice(left: socket.socket, right: socket.socket) -> None:
    """Copies both ways until both ends are through, then closes both; an error or a cancellation resets both."""
    left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pumps = [asyncio.ensure_future(_pump(left, right)), asyncio.ensure_future(_pump(right, left))]
    clean = False
    try:
        await asyncio.gather(*pumps)
        clean = True
    except OSError:
        # One side was reset: so is the other.
        clean = False
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for sock in (left, right):
            if clean:
                sock.close()
            else:
                reset(sock)
