"""With a certificate: what raw HTTP/2 may not do, how many calls run at once, and who may call what."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator

import grpc
import pytest
from door import CONNECTIONS, Door, Service, code_of, dial_tls, until_closed
from federation import PATIENCE_S, Federation, TestCA, serial, signed, until

from fl_runtime.kit import read_kit
from fl_runtime.names import BULK_STREAMS, CALLS_EACH, SPARE_CALLS
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.identity import Gate

# --- raw HTTP/2

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
    """HEADERS that never end, CONTINUATION after CONTINUATION, 166 MiB each time; and the server answers as before.

    What is being read takes its room, up to a whole flood where the server is slow, and the allocator keeps some of it
    for the next: so after two floods, what three more leave is compared with one.
    """
    import psutil

    assert running.server.process is not None
    server = psutil.Process(running.server.process.pid)
    piece = b"".join(literal(b"x-%04d" % n, b"v" * 100) for n in range(100))
    flood = frame(9, 0, 1, piece) * 16
    kit = read_kit(running.sites["site-1"].kit)

    def pour() -> int:
        """What of a flood the server let in."""
        came = 0
        with dial_tls(kit, running.port) as sock, contextlib.suppress(OSError):
            sock.sendall(PREFACE + frame(4, 0, 0) + frame(1, 0, 1, REQUEST))
            for _ in range(1000):
                sock.sendall(flood)
                came += len(flood)
        return came

    came = [pour(), pour()]
    before = server.memory_info().rss
    came += [pour(), pour(), pour()]
    assert min(came) > 0
    until(lambda: server.memory_info().rss - before < 1000 * len(flood) / 2, what="what a flood took is free again")
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
        code, details = code_of(lambda: stub.ask(pb.Question(job="x" * (tls.MAX_MESSAGE + 1)), timeout=PATIENCE_S))
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


def test_what_is_over_the_limit_is_refused_without_waiting_and_taken_when_there_is_room_again(door: Door) -> None:
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
