"""The way from a machine's network to the emulated Azure: a Unix socket's file is reached from every network namespace.

The daemon has a door for each of Azure's servers, which are on its loopback. A machine's edge answers at the metadata
service's address: there port 80 is the service for this machine, and port 443 is Azure's management, with TLS from end
to end.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import selectors
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from deployer.sandbox.machines.nspawn.rules import METADATA

ARM, SERVICE = "arm.sock", "metadata.sock"
_ANSWER_S = 30.0
_CHUNK = 65536
_PASSED = ("Metadata", "X-Forwarded-For")


@contextlib.contextmanager
def _named(folder: Path, name: str) -> Iterator[str]:
    """A socket's path that is short enough for the kernel, however long the folder's is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _enter(folder: Path, name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_ANSWER_S)
        with _named(folder, name) as path:
            sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _join(left: socket.socket, right: socket.socket) -> None:
    """Copies both ways until both ends are through."""
    other = {left: right, right: left}
    with selectors.DefaultSelector() as waiting:
        for sock in other:
            sock.settimeout(_ANSWER_S)
            waiting.register(sock, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                sock = cast("socket.socket", key.fileobj)
                if data := sock.recv(_CHUNK):
                    other[sock].sendall(data)
                    continue
                waiting.unregister(sock)
                other[sock].shutdown(socket.SHUT_WR)


class _Through(socketserver.BaseRequestHandler):
    """One connection, passed on."""

    def handle(self) -> None:
        # Whoever goes away, or is not there, ends the connection: the other side sees it.
        with contextlib.suppress(OSError), cast("Any", self.server).onward() as other:
            _join(self.request, other)


class Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The daemon's side: passes what comes to a socket in `folder` on to the server at `url`."""

    daemon_threads = True

    def __init__(self, folder: Path, name: str, url: str) -> None:
        where = urlsplit(url)
        self.onward: Callable[[], socket.socket] = lambda: socket.create_connection(
            (str(where.hostname), int(where.port or 0))
        )
        with _named(folder, name) as path:
            super().__init__(path, _Through)
        threading.Thread(target=self.serve_forever, args=(0.1,), name=f"door {name}", daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Metadata(BaseHTTPRequestHandler):
    """A request to the metadata service, passed on as this machine's."""

    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        server = cast("Any", self.server)
        headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
        onward = http.client.HTTPConnection(METADATA)
        try:
            onward.sock = _enter(server.folder, SERVICE)
            onward.request(self.command, f"{server.machine}{self.path}", headers=headers)
            answer = onward.getresponse()
            status, body, kind = answer.status, answer.read(), answer.headers.get("Content-Type", "text/plain")
        except (OSError, http.client.HTTPException) as error:
            status, body, kind = 500, str(error).encode(), "text/plain"
        finally:
            onward.close()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _pass

    def log_message(self, format: str, *args: object) -> None:
        """No log: paths are the machine's own business."""


def open_for(folder: Path, machine: str) -> None:
    """Serves the machine with that resource ID, in the network namespace of this thread, for this process's life."""
    service: Any = _Tcp((METADATA, 80), _Metadata)
    service.folder, service.machine = folder, machine
    management: Any = _Tcp((METADATA, 443), _Through)
    management.onward = lambda: _enter(folder, ARM)
    for server in (service, management):
        threading.Thread(target=server.serve_forever, name="azure", daemon=True).start()
