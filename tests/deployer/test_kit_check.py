"""What a hospital's IT is told before day one: on real sockets, with a proxy, and with somebody who opens TLS."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from deployer.host_doctor import clock_finding
from tests.deployer.kit_servers import kits, listening, tls_of


def proxy_to(port: int, seen: list[str], status: str = "200 OK") -> Any:
    """A handler that is an HTTP proxy before one server."""

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = connection.recv(65536).decode()
            seen.append(request.splitlines()[0])
            connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
            if not status.startswith("200"):
                return
            with socket.create_connection(("127.0.0.1", port)) as onward:
                back = threading.Thread(target=pump, args=(onward, connection), daemon=True)
                back.start()
                pump(connection, onward)
                back.join(60)

    return handle


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def check(kit: Path, *words: str, tmp_path: Path) -> tuple[int, dict[str, Any], str]:
    """The command, as IT would type it."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    argv = [sys.executable, "-m", "deployer.cli", "kit", "check", str(kit), *words, "--state", str(tmp_path / "state")]
    done = subprocess.run([*argv, "--json"], env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout.splitlines()[0]), done.stderr


def by_subject(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["subject"]: one for one in found["findings"]}


def test_a_free_way_and_what_to_open_are_told(made: Path, tmp_path: Path) -> None:
    with listening(tls_of(made / "server")) as port:
        code, found, said = check(made / "site-1", "--server", f"127.0.0.1:{port}", tmp_path=tmp_path)
    assert code == 0, said
    findings = by_subject(found)
    assert {findings[name]["level"] for name in ("kit", "certificate", "Python", "disk")} == {"ok"}
    assert findings["way to the server"]["level"] == "ok"
    assert "nobody opens TLS" in findings["TLS"]["what"]
    assert (findings["data"]["level"], "is not there" in findings["data"]["what"]) == ("warning", True)
    assert found["open"][0].startswith(f"outwards: TCP to 127.0.0.1:{port}")
    assert "inwards: nothing" in found["open"]


def test_a_closed_port_says_what_to_open(made: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    code, found, said = check(made / "site-1", "--server", f"127.0.0.1:{port}", tmp_path=tmp_path)
    assert code == 9
    assert by_subject(found)["way to the server"]["next"] == f"open TCP from this machine to 127.0.0.1:{port}"
    assert "is not reached" in said


def test_a_proxy_is_asked_and_its_refusal_is_told_in_its_own_words(made: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    with listening(tls_of(made / "server")) as port, listening(proxy_to(port, seen)) as proxy:
        server = f"fl.hospital.example:{port}"
        code, found, said = check(
            made / "site-1", "--server", server, "--proxy", f"http://127.0.0.1:{proxy}", tmp_path=tmp_path
        )
        assert code == 0, said
        assert seen == [f"CONNECT {server} HTTP/1.1"]
        assert f"which may CONNECT to {server}" in found["open"][0]
    with listening(proxy_to(0, seen, "403 Forbidden by policy 17")) as proxy:
        code, found, _ = check(
            made / "site-1", "--server", server, "--proxy", f"http://127.0.0.1:{proxy}", tmp_path=tmp_path
        )
    assert code == 9
    finding = by_subject(found)["way to the server"]
    assert "403 Forbidden by policy 17" in finding["why"]
    assert f"let the proxy CONNECT to {server}" in finding["next"]


def test_somebody_who_opens_tls_is_named(made: Path, tmp_path: Path) -> None:
    other = kits(tmp_path / "other", "middlebox")
    with listening(tls_of(other / "server")) as port:
        code, found, _ = check(made / "site-1", "--server", f"127.0.0.1:{port}", tmp_path=tmp_path)
    assert code == 9
    finding = by_subject(found)["TLS"]
    assert finding["what"] == "somebody on the way opens it"
    assert "middlebox" in finding["why"]
    assert "TLS inspection" in finding["next"]


def test_a_changed_kit_and_an_unknown_server_are_told(made: Path, tmp_path: Path) -> None:
    code, found, _ = check(made / "site-1", tmp_path=tmp_path)
    assert code == 0
    assert by_subject(found)["way to the server"]["level"] == "unknown"
    copy = tmp_path / "site-1"
    subprocess.run(["cp", "-a", str(made / "site-1"), str(copy)], check=True)
    with open(copy / "start.sh", "a") as script:
        script.write("# and more\n")
    code, found, _ = check(copy, tmp_path=tmp_path)
    assert code == 4
    assert by_subject(found)["kit"]["level"] == "refused"


def test_a_clock_that_is_off_is_told_with_its_direction() -> None:
    assert clock_finding(3.0).level == "ok"
    ahead, behind = clock_finding(400.0), clock_finding(-400.0)
    assert (ahead.level, ahead.what, behind.what) == ("refused", "is 400 s ahead", "is 400 s behind")
