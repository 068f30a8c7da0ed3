"""The stack's rules stand before each port, and the machine's traffic comes from its own address."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from machine_lab import PORT, Lab, proxied, run

from deployer.sandbox.machines.front import admits, open_ports
from deployer.sandbox.model import Rule

FROM_HERE = Rule(8002, 8002, "tcp", "198.51.100.0/24")


@contextmanager
def service(machine: dict[str, Any], port: int = 8002) -> Iterator[list[str]]:
    """A program on the machine that answers each connection with its peer's address, then echoes. Yields the peers."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((machine["bind"], port))
    listener.listen()
    peers: list[str] = []

    def serve(connection: socket.socket, peer: str) -> None:
        with connection:
            connection.sendall(peer.encode() + b"\n")
            try:
                while data := connection.recv(1 << 20):
                    connection.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, (peer, _) = listener.accept()
            except OSError:
                return
            peers.append(peer)
            threading.Thread(target=serve, args=(connection, peer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield peers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def call(address: str, port: int = 8002, source: str | None = None) -> socket.socket:
    return socket.create_connection((address, port), timeout=5, source_address=(source, 0) if source else None)


def is_let_in(address: str, port: int = 8002, source: str | None = None) -> bool:
    try:
        with call(address, port, source) as sock:
            return sock.recv(100) != b""
    except OSError:
        return False


def is_cut(sock: socket.socket) -> bool:
    """Whether the connection is over: reset, or, where the reset came before the proxy's own, ended."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def test_who_may_come_reaches_the_machine_and_others_are_reset(lab: Lab) -> None:
    machine = lab.boot(ingress=(FROM_HERE,))
    with service(machine) as peers:
        assert is_let_in(machine["public_ip"])
        stranger = lab.machines.address()
        assert not is_let_in(machine["public_ip"], source=stranger)
        assert peers == ["127.0.0.1"]
        with pytest.raises(ConnectionRefusedError):
            call(machine["public_ip"], 8003)  # no rule: nobody listens
        with pytest.raises(ConnectionRefusedError):
            call(machine["public_ip"], PORT)


def test_a_machine_is_seen_by_its_public_address(lab: Lab) -> None:
    site = lab.boot()
    server = lab.boot(ingress=(Rule(8002, 8002, "tcp", f"{site['public_ip']}/32"),))
    other = lab.boot()
    with service(server) as peers:
        sock, head = proxied(site["egress"], server["public_ip"], 8002)
        assert head.startswith(b"HTTP/1.1 200")
        assert sock.recv(100) == f"{site['public_ip']}\n".encode()
        sock, head = proxied(other["egress"], server["public_ip"], 8002)
        # The reset may come while the proxy is still connecting: then the proxy says so.
        assert head.startswith(b"HTTP/1.1 502") or is_cut(sock)
        assert peers == [site["public_ip"]]
        # The commands of the machine take that way by themselves.
        code = f"""
import os, socket
host, port = os.environ["https_proxy"][7:].split(":")
sock = socket.create_connection((host, int(port)))
sock.sendall(b"CONNECT {server["public_ip"]}:8002 HTTP/1.1\\r\\n\\r\\n")
heard = b""
while not heard.endswith(b"{site["public_ip"]}\\n"):
    heard += sock.recv(99)
print(heard)
"""
        assert site["public_ip"] in run(lab.ssh(site), f"python3 -c {shlex.quote(code)}")[1].decode()


def test_nothing_leaves_the_sandbox(lab: Lab) -> None:
    machine = lab.boot()
    outside = ["192.0.2.1", "example.org", "127.0.0.1", "localhost", machine["bind"], "0.0.0.0", "169.254.169.254"]
    for target in outside:
        _, head = proxied(machine["egress"], target, 80)
        assert head.startswith(b"HTTP/1.1 403"), target
    _, head = proxied(machine["egress"], lab.machines.address(), 9)
    assert head.startswith(b"HTTP/1.1 502")


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"CONNECT\r\n\r\n", b"CONNECT a:99999999 HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 9],
)
def test_the_proxy_survives_garbage(lab: Lab, garbage: bytes) -> None:
    machine = lab.boot()
    host, _, port = machine["egress"].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        try:
            answer = sock.recv(4096)
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 405")
    _, head = proxied(machine["egress"], "192.0.2.1", 80)
    assert head.startswith(b"HTTP/1.1 403")


def test_rules_change_live_and_cut_only_whom_they_no_longer_allow(lab: Lab) -> None:
    ana, ben = lab.machines.address(), lab.machines.address()
    both = (Rule(8002, 8002, "tcp", f"{ana}/32"), Rule(8002, 8002, "tcp", f"{ben}/32"))
    machine = lab.boot(ingress=both)
    with service(machine):
        kept, cut = call(machine["public_ip"], source=ana), call(machine["public_ip"], source=ben)
        assert kept.recv(100)
        assert cut.recv(100)
        lab.machines.change(machine["id"], ingress=both[:1])
        with pytest.raises(ConnectionResetError):
            cut.recv(100)
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"
        lab.machines.change(machine["id"], ingress=both)
        assert is_let_in(machine["public_ip"], source=ben)
        kept.sendall(b"and here")
        assert kept.recv(100) == b"and here"


def test_a_world_address_stands_for_whoever_was_given_it(lab: Lab) -> None:
    hospital = lab.machines.address()
    machine = lab.boot(ingress=(Rule(8002, 8002, "tcp", "203.0.113.7/32"),))
    with service(machine):
        assert not is_let_in(machine["public_ip"], source=hospital)
        lab.machines.driver.set_world({**lab.machines.world, hospital: "203.0.113.7"})
        assert lab.machines.driver.wait(60)
        assert is_let_in(machine["public_ip"], source=hospital)
        lab.machines.driver.set_world(lab.machines.world)
        assert lab.machines.driver.wait(60)
        assert not is_let_in(machine["public_ip"], source=hospital)


def test_an_address_moves_to_another_machine(lab: Lab) -> None:
    one, two = lab.boot(ingress=(FROM_HERE,)), lab.boot(ingress=(FROM_HERE,), public_ip=None)
    address = one["public_ip"]
    with service(one) as first, service(two) as second:
        assert is_let_in(address)
        open_connection = call(address)
        assert open_connection.recv(100)
        lab.machines.change(one["id"], public_ip=None)
        lab.machines.change(two["id"], public_ip=address)
        deadline = time.monotonic() + 60
        while not is_let_in(address):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(ConnectionResetError):
            open_connection.recv(100)
        assert (len(first), len(second)) == (2, 1)
        _, head = proxied(
            next(m for m in lab.machines.driver.machines() if m["id"] == one["id"])["egress"], address, 8002
        )
        assert head.startswith(b"HTTP/1.1 403"), "without a public address there is no way out"


def test_a_rule_for_all_ports_opens_what_the_machine_listens_on(lab: Lab) -> None:
    machine = lab.boot(ingress=(Rule(0, 65535, "-1", "0.0.0.0/0"),))
    deadline = time.monotonic() + 60
    with service(machine, 9999):
        while not is_let_in(machine["public_ip"], 9999):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        call(machine["public_ip"], 9998)


def test_a_hundred_megabytes_pass_whole_through_proxy_and_rules(lab: Lab) -> None:
    site = lab.boot()
    server = lab.boot(ingress=(Rule(8002, 8002, "tcp", f"{site['public_ip']}/32"),))
    data = os.urandom(1 << 20)
    digest, got = hashlib.sha256(), hashlib.sha256()
    with service(server):
        sock, _ = proxied(site["egress"], server["public_ip"], 8002)
        while sock.recv(1) != b"\n":
            pass

        def write() -> None:
            for _ in range(100):
                digest.update(data)
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        while chunk := sock.recv(1 << 20):
            got.update(chunk)
        writer.join()
    assert got.digest() == digest.digest()


def test_an_idle_machine_uses_no_processor_time(lab: Lab) -> None:
    machine = lab.boot()

    def used() -> int:
        with open(f"/proc/{machine['pid']}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    spent = []
    while not spent or (spent[-1] > 1 and len(spent) < 20):  # on a busy machine its boot's end may still be at work
        before = used()
        time.sleep(1.5)
        spent.append(used() - before)
    assert spent[-1] <= 1, spent  # hundredths of a second


@pytest.mark.parametrize(
    ("rule", "source", "port", "allowed"),
    [
        (Rule(22, 22, "tcp", "10.0.0.0/8"), "10.1.2.3", 22, True),
        (Rule(22, 22, "tcp", "10.0.0.0/8"), "11.1.2.3", 22, False),
        (Rule(22, 22, "udp", "0.0.0.0/0"), "10.1.2.3", 22, False),
        (Rule(20, 25, "Tcp", "*"), "10.1.2.3", 25, True),
        (Rule(20, 25, "Tcp", "*"), "10.1.2.3", 26, False),
        (Rule(-1, -1, "-1", "0.0.0.0/0"), "10.1.2.3", 4444, True),
        (Rule(22, 22, "tcp", "not a cidr"), "10.1.2.3", 22, False),
        (Rule(22, 22, "tcp", "::/0"), "10.1.2.3", 22, False),
        (Rule(22, 22, "*", "10.1.2.3"), "10.1.2.3", 22, True),
        (Rule(22, 22, "tcp", "10.1.2.9/8"), "10.1.2.3", 22, True),
    ],
)
def test_rules_mean_what_the_clouds_mean_by_them(rule: Rule, source: str, port: int, allowed: bool) -> None:
    assert admits([rule], source, port) is allowed


def test_narrow_rules_open_their_ports_and_wide_ones_only_used_ports() -> None:
    assert open_ports([Rule(80, 82, "tcp", "*"), Rule(1, 1, "udp", "*")], [5]) == {80, 81, 82}
    assert open_ports([Rule(0, 65535, "tcp", "*")], [5, 6]) == {5, 6}
