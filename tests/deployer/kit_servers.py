"""A federation's kits, and servers on loopback that answer as their runtimes would."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace


def kits(folder: Path, name: str = "digits") -> Path:
    """A federation's kits."""
    folder.mkdir()
    spec = {
        "version": 1,
        "name": name,
        "server": {"target": "kit"},
        "sites": {"site-1": {"target": "kit", "data": {"digits": "/nonexistent/digits"}}},
        "admins": {"ana@hospital-a.example": {"role": "lead"}},
    }
    (folder / "federation.yml").write_text(yaml.safe_dump(spec))
    workspace = Workspace.find(folder)
    source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "a long passphrase"})
    provision(workspace, load_spec(workspace.spec_path), source)
    return workspace.kits_dir


@contextlib.contextmanager
def listening(handle: Any) -> Iterator[int]:
    """A server on loopback; `handle(connection)` for each connection, in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(60)


def tls_of(kit: Path) -> Any:
    """A handler that answers with a kit's certificate, as its runtime would."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "startup" / "participant.crt", kit / "startup" / "participant.key")

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    return handle
