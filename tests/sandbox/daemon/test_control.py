"""The control: for its owner only, and not to be brought down by anything that is sent to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from deployer.errors import SandboxError
from deployer.sandbox.client import Sandbox
from deployer.sandbox.faults import Faults
from deployer.sandbox.state import SandboxState


def send(state: SandboxState, data: bytes, wait: bool = True) -> bytes:
    with socket.create_connection(state.control, timeout=10) as sock:
        sock.sendall(data)
        if not wait:
            return b""
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := sock.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def request(state: SandboxState, method: str, path: str, body: bytes = b"", token: str | None = None) -> bytes:
    token = state.token if token is None else token
    head = f"{method} {path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return send(state, head.encode() + body)


@pytest.fixture
def state(sandbox: Sandbox, home: Path) -> SandboxState:
    found = SandboxState.load(home)
    assert found is not None
    return found


def test_without_the_token_nobody_is_answered(sandbox: Sandbox, state: SandboxState) -> None:
    for token in ("", "wrong", state.token[:-1], state.token + "x", "\u00e9"):
        assert b" 401 " in request(state, "GET", "/status", token=token)
        assert b" 401 " in request(state, "POST", "/stop", token=token)
    assert b" 401 " in send(state, b"GET /status HTTP/1.0\r\n\r\n")
    assert b" 200 " in request(state, "GET", "/status")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00" * 5000,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /status HTTP/1.0\r\n\r\n",
        b"GET /status HTTP/1.0\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.0\r\n\r\n",
        b"POST /hosts HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /hosts HTTP/1.0\r\nContent-Length: -5\r\n\r\n",
        b"POST /hosts HTTP/1.0\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_garbage_is_refused_and_does_no_harm(sandbox: Sandbox, state: SandboxState, garbage: bytes) -> None:
    answer = send(state, garbage)
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert sandbox.status()["realm_id"] == sandbox.realm_id


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/leases", b"not json"),
        ("POST", "/leases", b"[]"),
        ("POST", "/leases", b"{}"),
        ("POST", "/leases", b""),
        ("POST", "/leases", b'{"pid": "x"}'),
        ("POST", "/leases", b'{"pid": 999999999}'),
        ("POST", "/on-premises", b'{"world_address": "127.0.0.1"}'),
        ("POST", "/on-premises", b'{"world_address": "example.org"}'),
        ("POST", "/hosts", b'{"name": "x"}'),
        ("POST", "/profiles", b'{"name": "x", "account": "12"}'),
        ("POST", "/profiles", b'{"name": "x]\\n[y", "account": "123456789012"}'),
        ("PUT", "/faults", b'{"delays": {"vm": -1}}'),
        ("PUT", "/faults", b'{"delay": {}}'),
        ("DELETE", "/hosts/../../x", b""),
        ("GET", "/nowhere", b""),
        ("PUT", "/status", b""),
    ],
)
def test_wrong_requests_get_a_reason(
    sandbox: Sandbox, state: SandboxState, method: str, path: str, body: bytes
) -> None:
    head, _, rest = request(state, method, path, body).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert 400 <= status < 500, head
    assert json.loads(rest)["error"]


def test_a_hundred_silent_connections_do_not_shut_out_the_owner(sandbox: Sandbox, state: SandboxState) -> None:
    silent = [socket.create_connection(state.control) for _ in range(40)]
    try:
        assert sandbox.status()["realm_id"] == sandbox.realm_id
    finally:
        for sock in silent:
            sock.close()


def test_many_clients_at_once_are_all_answered(sandbox: Sandbox) -> None:
    realms: list[str] = []
    threads = [threading.Thread(target=lambda: realms.append(sandbox.status()["realm_id"])) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert realms == [sandbox.realm_id] * 30


def test_faults_are_set_read_and_ended(sandbox: Sandbox, home: Path) -> None:
    faults = Faults(delays={"vm": 0.5}, no_capacity=("eu-west-1a",), fail={"address": "no more addresses"})
    sandbox.set_faults(faults)
    assert sandbox.faults == faults
    (home / "faults.json").write_text('{"never_ssh": ["site-1"]}')
    assert sandbox.faults == Faults(never_ssh=("site-1",))
    sandbox.set_faults(Faults())
    assert sandbox.faults == Faults()
    with pytest.raises(SandboxError, match="0 to 3600"):
        sandbox.set_faults(Faults(delays={"vm": 1e9}))


def test_status_is_quick(sandbox: Sandbox) -> None:
    """The best of ten, for the machine may be busy."""
    took = []
    for _ in range(10):
        began = time.monotonic()
        sandbox.status()
        took.append(time.monotonic() - began)
    assert min(took) < 0.2
