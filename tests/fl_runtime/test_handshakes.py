"""Before anybody has proven who they are: what a server bears from whoever has no certificate, or says nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from pathlib import Path

import pytest
from door import CONNECTIONS, HANDSHAKE_S, Door, is_closed, until_closed
from federation import PATIENCE_S, Federation, until

from fl_runtime.kit import Kit, read_kit


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
    def said() -> bytes:
        try:
            sock = hasty.tls()
        except (ConnectionError, ssl.SSLError):
            return b""  # a busy machine may need longer for a handshake: once more
        with sock:
            return until_closed(sock)

    until(said)  # HTTP/2 begins once the server has seen the certificate; then it is closed for the silence


def test_many_half_open_connections_are_closed_and_keep_nobody_out_for_good(tmp_path: Path) -> None:
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
def test_what_is_no_tls_is_closed_before_a_handshakes_time_is_over(door: Door, junk: bytes) -> None:
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
