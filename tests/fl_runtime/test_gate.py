"""Before and at the door: what a server bears from whoever has no certificate, and how many calls it runs at once."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from federation import PATIENCE_S, Federation, TestCA, free_port, serial, signed, until

from fl_runtime.kit import Kit, read_kit
from fl_runtime.names import BULK_STREAMS, CALLS_EACH, SPARE_CALLS
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


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Door]:
    """A door that gives a handshake only a second."""
    made = Door(tmp_path, HANDSHAKE_S)
    yield made
    made.close()


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


# --- before anybody has proven who they are


def test_a_connection_that_says_nothing_is_closed_after_the_handshakes_time(hasty: Door) -> None:
    began = time.monotonic()
    with hasty.raw() as silent:
        until_closed(silent)
    assert time.monotonic() - began > 0.9 * HANDSHAKE_S


def test_a_handshake_that_comes_drop_by_drop_is_closed_after_its_time(hasty: Door) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(480)  # whole, it would be answered
    began = time.monotonic()

    def trickle(sock: socket.socket) -> None:
        for byte in hello:  # at least 24 s
            sock.sendall(bytes([byte]))
            time.sleep(0.05)

    with hasty.raw() as slow, pytest.raises(ConnectionError):
        trickle(slow)
    assert time.monotonic() - began > 0.9 * HANDSHAKE_S


def test_a_certificate_alone_is_not_enough_the_first_frame_must_come_too(hasty: Door) -> None:
    with contextlib.suppress(OSError), hasty.tls() as mute:
        until_closed(mute)


def test_many_half_open_connections_keep_nobody_out_for_longer_than_a_handshake(tmp_path: Path) -> None:
    """As many as the cap allows and more: who comes too late is closed at once, and the rest after its time."""
    with contextlib.closing(Door(tmp_path, 3 * HANDSHAKE_S)) as door, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(door.raw()) for _ in range(CONNECTIONS + 20)]
        gone = until(lambda: (now := [sock for sock in opened if is_closed(sock)])[9:] and now)
        assert len(gone) <= 30  # over the cap: not even a handshake
        until(door.answers)
        until(lambda: all(map(is_closed, opened)))
        until(door.answers)


def test_half_open_connections_below_the_cap_keep_no_call_waiting(door: Door) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(door.raw()) for _ in range(CONNECTIONS // 2)]
        assert door.answers()
        assert not any(map(is_closed, opened))


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000), b"SSH-2.0-x\r\n", os.urandom(4096)]
)
def test_what_is_no_tls_is_closed_at_once(door: Door, junk: bytes) -> None:
    with door.raw() as sock:
        sock.sendall(junk)
        until_closed(sock)
    assert door.answers()


def old_tls(kit: Kit, port: int, ciphers: str) -> str | None:
    """The version that a client of at most TLS 1.2 comes in with; None when it does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=kit.ca.decode())
    context.load_cert_chain(kit.path / "startup/participant.crt", kit.path / "startup/participant.key")
    context.set_ciphers(ciphers)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="server.digits.fedspan") as let_in,
    ):
        return let_in.version()
    return None


def bare(fed: Federation) -> None:
    """The server's process gets the environment of a machine, not what this process has set for its own gRPC."""
    for name in ("GRPC_SSL_CIPHER_SUITES", "GRPC_VERBOSITY"):
        fed.server.env.pop(name, None)


def test_tls_1_2_is_shut_out_whatever_ciphers_are_offered(stopped: Federation) -> None:
    bare(stopped)
    stopped.server.start()
    until(lambda: stopped.server.status().get("running"))
    kit = read_kit(stopped.sites["site-1"].kit)
    for ciphers in ("DEFAULT", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ALL:@SECLEVEL=0"):
        assert old_tls(kit, stopped.port, ciphers) is None, ciphers


def test_a_server_that_would_let_tls_1_2_in_does_not_start(stopped: Federation) -> None:
    """gRPC reads its settings when it is imported: a start that imports it too early ends with the reason."""
    import subprocess
    import sys

    bare(stopped)
    code = "import grpc, sys; from fl_runtime.__main__ import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "serve", "--kit", str(stopped.server.kit), "--state", str(stopped.server.state)]
    ended = subprocess.run(argv, env=stopped.server.env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "its port takes connections of an old TLS" in ended.stdout + ended.stderr


# --- with a certificate, raw HTTP/2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    """One header, not indexed, lengths under 127."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


REQUEST = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/fedspan.v1.Hub/Ask"),
        (b":authority", b"server.digits.fedspan"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


def test_a_flood_of_metadata_is_not_kept_in_memory(running: Federation) -> None:
    """HEADERS that never end, CONTINUATION after CONTINUATION: 170 MiB of them, and the server answers as before."""
    import psutil

    assert running.server.process is not None
    server = psutil.Process(running.server.process.pid)
    before = server.memory_info().rss
    piece = b"".join(literal(b"x-%04d" % n, b"v" * 100) for n in range(100))
    flood = frame(9, 0, 1, piece) * 16
    with contextlib.suppress(OSError), dial_tls(read_kit(running.sites["site-1"].kit), running.port) as sock:
        sock.sendall(PREFACE + frame(4, 0, 0) + frame(1, 0, 1, REQUEST))
        for _ in range(1000):
            sock.sendall(flood)
    assert server.memory_info().rss - before < 100 * 1024 * 1024
    with running.session() as session:
        assert len(session.sites()) == 3


def test_metadata_over_the_limit_is_refused_by_name(door: Door) -> None:
    with door.stub("site-1") as stub:
        for size in (20_000, 200_000):
            code, _ = code_of(
                lambda: stub.ask(pb.Question(), metadata=(("x-much", "v" * size),), timeout=PATIENCE_S)  # noqa: B023
            )
            assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
        stub.ask(pb.Question(), metadata=(("x-little", "v" * 1000),), timeout=PATIENCE_S)


def test_a_message_over_the_limit_is_refused(door: Door) -> None:
    with door.stub("site-1") as stub:
        code, details = code_of(lambda: stub.ask(pb.Question(job="x" * (tls.MAX_REQUEST + 1)), timeout=PATIENCE_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in details


def test_pings_faster_than_the_interval_are_answered_with_goaway(door: Door) -> None:
    with door.tls() as sock:
        pings = b"".join(frame(6, 0, 0, struct.pack(">Q", number)) for number in range(20))
        sock.sendall(PREFACE + frame(4, 0, 0) + pings)
        assert b"too_many_pings" in until_closed(sock)


def test_the_settings_that_decide_about_pings_back_off_and_dns_are_explicit() -> None:
    client, server = dict(tls.CHANNEL), dict(tls.SERVER)
    assert (client["grpc.initial_reconnect_backoff_ms"], client["grpc.max_reconnect_backoff_ms"]) == (200, 2000)
    assert client["grpc.dns_min_time_between_resolutions_ms"] <= 5000
    assert client["grpc.keepalive_permit_without_calls"] == server["grpc.keepalive_permit_without_calls"] == 1
    assert server["grpc.http2.min_recv_ping_interval_without_data_ms"] < client["grpc.keepalive_time_ms"] < 240_000
    assert client["grpc.http2.max_pings_without_data"] == 0


# --- how many calls at once


def hold(stub: rpc.HubStub) -> Iterator[pb.ToParticipant]:
    """Open a stream and wait for its first message."""

    def silent() -> Iterator[pb.ToHub]:
        time.sleep(PATIENCE_S)
        yield pb.ToHub()

    call = stub.connect(silent(), timeout=PATIENCE_S)
    next(call)
    return call


def test_the_gate_is_sized_from_the_federation() -> None:
    assert Gate("digits").limit == BULK_STREAMS + SPARE_CALLS == 36
    assert Gate("digits", sites=[f"site-{n}" for n in range(100)], bulk=8).limit == 2 * 100 + 8 + 32


def test_what_is_over_the_limit_is_refused_at_once_and_taken_when_there_is_room_again(door: Door) -> None:
    door.gate._room = 3  # two calls of one site that is new, and three more: five
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(door.stub("site-1"))
        held = [hold(stub) for _ in range(door.gate.limit or 1)]
        while len(held) < door.gate.limit:
            held.append(hold(stub))
        assert len(held) == door.gate.running == 5
        code, details = code_of(lambda: hold(stub))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED  # of a pool that is too small: DEADLINE_EXCEEDED
        assert "the server is busy with 5 calls" in details
        held.pop().cancel()
        until(lambda: door.gate.running == 4)
        held.append(hold(stub))


def test_sites_that_come_for_the_first_time_make_room_for_themselves(door: Door) -> None:
    """However many, also when they come at the same moment and the server knows none of them."""
    with contextlib.ExitStack() as stack:
        stubs = [stack.enter_context(door.stub(f"site-{n}")) for n in range(CONNECTIONS - 5)]
        held = [hold(stub) for stub in stubs]
        assert door.gate.running == len(held)
        assert door.gate.limit == 2 * len(held) + BULK_STREAMS + SPARE_CALLS
        assert door.answers("site-0")


def test_one_participant_alone_can_not_use_up_the_calls(door: Door) -> None:
    with door.stub("site-1") as greedy, door.stub("site-2") as other:
        held = [hold(greedy) for _ in range(CALLS_EACH)]
        code, details = code_of(lambda: hold(greedy))
        assert (code, details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, f"site-1 has {CALLS_EACH} calls open already")
        hold(other).cancel()
        assert len(held) == CALLS_EACH


def test_a_certificate_that_expires_during_a_stream_ends_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with door.stub("site-1") as stub:
        call = hold(stub)
        door.gate.sweep()
        assert door.gate.running == 1
        later = time.time() + 40 * 86400
        monkeypatch.setattr("fl_runtime.wire.identity.time.time", lambda: later)
        door.gate.sweep()
        assert code_of(lambda: list(call))[0] is grpc.StatusCode.CANCELLED
        code, details = code_of(lambda: stub.ask(pb.Question(), timeout=PATIENCE_S))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "has expired on" in details


# --- every method of the real server


def test_every_method_refuses_the_wrong_role_another_federation_and_a_revoked_serial(running: Federation) -> None:
    """Not a list that somebody keeps: the methods that the server registers, called with any bytes."""
    ca = TestCA("other")
    ca.key, ca.certificate = running.ca.key, running.ca.certificate  # the same CA signs for another federation
    strangers = running.root / "gate"
    foreign = {role: ca.kit(strangers / f"foreign-{role}", "x", role, port=running.port) for role in ("site", "admin")}
    revoked = {
        role: running.ca.kit(strangers / f"revoked-{role}", f"gone-{role}", role, port=running.port)
        for role in ("site", "admin")
    }
    server = running.ca.kit(strangers / "server", "server", "server", port=running.port)
    with running.session() as session:
        session.revoke(*signed(running.ca, 7, *(serial(kit) for kit in revoked.values())))
    said: dict[str, str] = {}
    methods: list[str] = []
    for make in (rpc.hub_handlers, rpc.blob_handlers):
        methods += list(make(Service(Gate("digits")))._method_handlers)
    assert len(methods) >= 9
    for kind, kits in (("foreign", foreign.values()), ("revoked", revoked.values()), ("server", [server])):
        for folder in kits:
            kit = read_kit(folder)
            with tls.channel(
                type(kit)(**{**kit.__dict__, "server_name": "server.digits.fedspan"}), kit.endpoint()
            ) as c:
                for method in methods:
                    call = c.stream_stream(method)
                    code, details = code_of(lambda: list(call(iter([b""]), timeout=PATIENCE_S)))  # noqa: B023
                    assert code is grpc.StatusCode.PERMISSION_DENIED, (kind, method, code, details)
                    said[f"{kind} {method}"] = details
    assert "belongs to the federation 'other'" in said[f"foreign {methods[0]}"]
    assert "is a server; this call is for" in said[f"server {methods[0]}"]
    assert any("is revoked" in text for key, text in said.items() if key.startswith("revoked"))
