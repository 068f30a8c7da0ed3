"""The local wire: Unix sockets between hub or agent and the job's processes (no gRPC there).

A frame: 4 bytes length of the JSON part, 4 bytes length of the binary part (little endian), the JSON object, the
binary part (a small blob, or nothing). Sockets are 0600 and the peer's uid is checked on both sides.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fl_runtime.errors import NONSENSE, FlError, ProtocolError

_HEADER = struct.Struct("<II")
_MAX_JSON = 64 * 1024 * 1024
_MAX_BINARY = 1024 * 1024
Message = dict[str, Any]


class Connection:
    """Frames over a connected socket. Sending is safe from several threads; receiving is for one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: Message, binary: bytes = b"") -> None:
        """
        Raises:
            ProtocolError: it is more than the other side takes.
            OSError: the other side is gone.
        """
        body = json.dumps(message, separators=(",", ":"), allow_nan=True).encode()
        if len(body) > _MAX_JSON:  # the other side would hang up, and be sent it again
            raise ProtocolError("A local frame is too large", why=f"{len(body)} bytes; at most {_MAX_JSON} are taken")
        frame = _HEADER.pack(len(body), len(binary)) + body + binary
        with self._lock:
            self._socket.sendall(frame)

    def receive(self) -> tuple[Message, bytes] | None:
        """The next frame; None when the other side is gone."""
        try:
            header = self._reader.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return None
            size, extra = _HEADER.unpack(header)
            if size > _MAX_JSON or extra > _MAX_BINARY:
                raise ProtocolError("A local frame is too large", why=f"{size}+{extra} bytes")
            body = self._reader.read(size)
            binary = self._reader.read(extra) if extra else b""
        except (OSError, ValueError):
            return None
        if len(body) < size or len(binary) < extra:
            return None
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("A local frame is not JSON", why=str(error)) from None
        if not isinstance(message, dict):
            raise ProtocolError("A local frame is not an object")
        return message, binary

    @property
    def peer_pid(self) -> int:
        """The process at the other end; 0 when it is in another namespace."""
        return _credentials(self._socket)[0]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A Unix address holds 107 bytes; a deep folder is reached through its descriptor."""
    text = str(path)
    if len(os.fsencode(text)) <= 100:
        yield text
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def listen(path: Path, uid: int | None = None) -> socket.socket:
    """A listening socket, 0600, of `uid` (None = ours); a dead one of the same name is replaced."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        with _short(path) as address:
            sock.bind(address)
    finally:
        os.umask(old)
    if uid is not None:
        os.chown(path, uid, -1)
    sock.listen(64)
    return sock


def connect(path: Path, timeout: float | None = None) -> Connection:
    """Connect to a socket of this user; root may also ask who owns the folder that the socket lies in.

    Raises:
        OSError: nobody listens there, or another user does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with _short(path) as address:
            sock.connect(address)
        allowed = {os.getuid(), 0}
        if os.getuid() == 0:  # the deployer asks a runtime that has a user of its own
            allowed.add(os.stat(path.parent).st_uid)
        if peer_uid(sock) not in allowed:
            raise PermissionError(f"{path} belongs to another user")
    except OSError:
        sock.close()
        raise
    return Connection(sock)


def accept(sock: socket.socket, uid: int | None = None) -> Connection | None:
    """The next connection of this user (or of `uid`); None for one of somebody else's (it is closed)."""
    connection, _ = sock.accept()
    if peer_uid(connection) not in (os.getuid(), 0, uid):
        connection.close()
        return None
    return Connection(connection)


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED)."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int]:
    """Process id (as we see it) and user at the other end."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return int(pid), int(uid)


class Server:
    """Listens on a local socket; a thread for each peer, which asks for the status or attaches.

    Args:
        path: of the socket.
        status: what a peer that asks for it is told.
        attach: serves a peer that belongs to a job; given the connection and the peer's first message.
        log: where a peer that sent nonsense is noted.
        uid: another user whose processes may connect.
    """

    def __init__(
        self,
        path: Path,
        status: Callable[[], Message],
        attach: Callable[[Connection, Message], None],
        log: logging.Logger,
        uid: int | None = None,
    ) -> None:
        self._path, self._status, self._attach, self._log = path, status, attach, log
        self._uid = uid
        self._socket = listen(path, uid)
        threading.Thread(target=self._accept, name="local", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = accept(self._socket, self._uid)
            except OSError:
                return
            if connection is not None:
                threading.Thread(target=self._serve, args=(connection,), name="local-peer", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            first = connection.receive()
            if first is None:
                return
            if first[0].get("op") == "status":
                connection.send(self._status())
            elif first[0].get("op") == "attach":
                self._attach(connection, first[0])
        except OSError:
            self._log.debug("a local peer went away")
        except (FlError, *NONSENSE) as error:
            self._log.error("a local peer sent nonsense: %s", error)
        finally:
            connection.close()

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
