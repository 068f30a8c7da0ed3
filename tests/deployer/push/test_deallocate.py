"""The script by which a machine in Azure deallocates itself, against a server that plays metadata service and ARM."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import deployer.remote.deallocate

SCRIPT = Path(deployer.remote.deallocate.__file__)
VM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/site-1"
FORBIDDEN = (403, {"error": {"code": "AuthorizationFailed", "message": "The client has no\nauthorization"}})

Answer = tuple[int, dict[str, Any]]
Asked = list[tuple[str, str, dict[str, list[str]], dict[str, str]]]


@contextmanager
def azure(
    answers: Callable[[int], Answer], token: Answer = (200, {"access_token": "t0ken"})
) -> Iterator[tuple[str, Asked]]:
    """Its URL, and what it was asked. `answers`: what ARM says to the first, second, … request to deallocate."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def _say(self, status: int, body: dict[str, Any]) -> None:
            parts = urlsplit(self.path)
            asked.append((self.command, parts.path, parse_qs(parts.query), dict(self.headers)))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            content = json.dumps(body).encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._say(*(token if self.headers.get("Metadata") == "true" else (400, {})))

        def do_POST(self) -> None:
            self._say(*answers(1 + sum(method == "POST" for method, *_ in asked)))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def deallocate(arm: str, *more: str, metadata: str = "") -> subprocess.CompletedProcess[str]:
    """As the machine's unit runs it, with less patience. `metadata`: where that is, with a proxy that leads nowhere."""
    argv = [sys.executable, "-I", str(SCRIPT), "--vm", VM, "--arm", arm, "--metadata", metadata or arm]
    argv += ["--pause", "0.05", *(more or ("--patience", "30"))]
    proxy = {"http_proxy": "http://127.0.0.1:9"} if metadata else {}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=proxy)


def test_it_asks_for_its_own_token_and_gives_it_to_azures_management_alone() -> None:
    with azure(lambda _: (202, {})) as (url, asked):
        done = deallocate(url)
    assert (done.returncode, done.stderr) == (0, "")
    (how, where, query, headers), (then, vm, version, bearer) = asked
    assert (how, where) == ("GET", "/metadata/identity/oauth2/token")
    assert query == {"api-version": ["2018-02-01"], "resource": ["https://management.azure.com/"]}
    assert "Authorization" not in headers
    assert (then, vm, version) == ("POST", f"{VM}/deallocate", {"api-version": ["2024-11-01"]})
    assert (bearer["Authorization"], bearer["Content-Length"]) == ("Bearer t0ken", "0")


def test_a_role_that_is_not_known_yet_is_waited_for() -> None:
    with azure(lambda nth: FORBIDDEN if nth < 3 else (200, {})) as (url, asked):
        done = deallocate(url)
    assert done.returncode == 0
    assert [method for method, *_ in asked] == ["GET", "POST"] * 3
    assert done.stderr.count("AuthorizationFailed") == 1  # the journal is told once, not each time
    assert "403 Forbidden" in done.stderr


def test_what_is_refused_for_ever_is_told_and_fails_so_that_the_unit_powers_off() -> None:
    begun = time.monotonic()
    with azure(lambda _: FORBIDDEN) as (url, _):
        done = deallocate(url, "--patience", "1")
    assert done.returncode == 1
    assert time.monotonic() - begun >= 0.9
    assert "The client has no\\nauthorization" in done.stderr
    assert "given up: Azure bills this machine on" in done.stderr


def test_a_machine_without_identity_or_network_is_told_so() -> None:
    none = (400, {"error": "invalid_request", "error_description": "Identity not found"})
    with azure(lambda _: (200, {}), none) as (url, asked):
        done = deallocate(url, "--patience", "0")
    assert (done.returncode, "Identity not found" in done.stderr) == (1, True)
    assert all(method == "GET" for method, *_ in asked)
    done = deallocate("http://127.0.0.1:1", "--patience", "0")
    assert (done.returncode, "Connection refused" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_the_metadata_service_is_asked_past_any_proxy() -> None:
    with azure(lambda _: (200, {})) as (url, asked):
        done = deallocate("https://127.0.0.1:1", "--patience", "0", metadata=url)
    assert done.returncode == 1  # there is no ARM
    assert [method for method, *_ in asked] == ["GET"]


def test_a_token_follows_no_redirection() -> None:
    with azure(lambda _: (307, {})) as (url, asked):
        done = deallocate(url, "--patience", "0")
    assert (done.returncode, "307" in done.stderr) == (1, True)
    assert all(path != "/elsewhere" for _, path, *_ in asked)
