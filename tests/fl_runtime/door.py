"""A server in this process whose methods pass the gate, with limits that a test reaches; raw connections to it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from federation import PATIENCE_S, TestCA, free_port

from fl_runtime.kit import Kit, read_kit
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.identity import Gate

HANDSHAKE_S = 1.0  # at the hasty door; a call there may come too late on a busy machine
UNHURRIED_S = 120.0  # at the other one: whoever had to wait for it would have to wait longer than our patience
CONNECTIONS = 40


class Service:
    """Hub and Blobs whose every method passes the gate and then stays open until it is told to end."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.end = threading.Event()

    def connect(self, messages, context):
        self.gate.admit(context, ("site",))
        yield pb.ToParticipant(heartbeat=pb.Heartbeat(clock_ms=1))
        while context.is_active() and not self.end.wait(0.02):
            pass

    def ask(self, question, context):
        self.gate.admit(context, ("site", "admin"))
        return pb.Answer(document=b"{}")

    def __getattr__(self, name: str):
        return self.ask


class Door:
    """A server in this process, with limits that a test can reach."""

    def __init__(self, root: Path, handshake_s: float = UNHURRIED_S) -> None:
        self.ca = TestCA()
        self.port = free_port()
        self.root = root
        kit = self.kit("server", "server")
        self.gate = Gate("digits")
        self.service = Service(self.gate)
        self.server = tls.server(kit, handshake_s=handshake_s, connections=CONNECTIONS)
        self.server.add_generic_rpc_handlers((rpc.hub_handlers(self.service), rpc.blob_handlers(self.service)))
        assert self.server.add_secure_port(f"127.0.0.1:{self.port}", tls.server_credentials(kit)) == self.port
        self.server.start()

    def kit(self, name: str, role: str) -> Kit:
        folder = self.root / name
        return read_kit(folder if folder.exists() else self.ca.kit(folder, name, role, port=self.port))

    @contextlib.contextmanager
    def stub(self, name: str) -> Iterator[rpc.HubStub]:
        kit = self.kit(name, "site")
        with tls.channel(kit, kit.endpoint()) as channel:
            yield rpc.HubStub(channel)

    def answers(self, name: str = "site-1") -> bool:
        """One call over a new connection."""
        with self.stub(name) as stub:
            try:
                return bool(stub.ask(pb.Question(), timeout=PATIENCE_S).document)
            except grpc.RpcError:
                return False

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def tls(self, name: str = "site-1") -> ssl.SSLSocket:
        return dial_tls(self.kit(name, "site"), self.port)

    def close(self) -> None:
        self.service.end.set()
        self.server.stop(0.2).wait(3)


def dial_tls(kit: Kit, port: int) -> ssl.SSLSocket:
    """A TLS connection with a participant's certificate, and nothing said on it yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=kit.ca.decode())
    context.load_cert_chain(kit.path / "startup/participant.crt", kit.path / "startup/participant.key")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    return context.wrap_socket(plain, server_hostname="server.digits.fedspan")


def until_closed(sock: socket.socket) -> bytes:
    """What the other side says until it ends the connection."""
    got = bytearray()
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while data := sock.recv(65536):
            got.extend(data)
    return bytes(got)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has ended a connection on which it says nothing."""
    return bool(select.select([sock], [], [], 0)[0])


def code_of(action: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        action()
    return caught.value.code(), caught.value.details()
