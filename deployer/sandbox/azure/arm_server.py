"""The emulator's server: Azure Resource Manager and its token endpoint over TLS on a loopback address."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.azure import tls, view
from deployer.sandbox.azure.routes import Router
from deployer.sandbox.azure.schedules import Clock
from deployer.sandbox.azure.state import Cloud, Subscription
from deployer.sandbox.azure.web import Answer, Request
from deployer.sandbox.faults import FaultBook, book
from deployer.sandbox.model import InventoryItem, MachineSpec

log = logging.getLogger(__name__)
_NAMESPACE = uuid.UUID("6b1b3a7e-3f0c-5e0a-9d53-fed59a200001")
_IDLE_SECONDS = 120
_MAX_BODY = 4 << 20


_SCHEDULES_S = 1.0
"""How often machines' daily shutdowns are looked at."""


def _made(*words: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(words)))


DEFAULT_SUBSCRIPTION = _made("subscription")
DEFAULT_TENANT = _made("tenant")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = _IDLE_SECONDS
    # Headers and body leave in one piece: two would wait for the client's delayed acknowledgement in between.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s %s", self.address_string(), format % args)

    def handle(self) -> None:
        # A client that goes away, speaks no TLS or does not trust us: its matter, not the sandbox's.
        with contextlib.suppress(OSError):
            super().handle()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY:
            # Read it all the same: a client that is still sending would see a broken connection and no answer.
            self.close_connection = True
            while length > 0 and (piece := self.rfile.read(min(length, _MAX_BODY))):
                length -= len(piece)
            return self._send(Answer(413, {"error": {"code": "RequestContentTooLarge", "message": "Too large."}}))
        content = self.rfile.read(length)
        url = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(url.path),
            {key.lower(): value for key, value in parse_qsl(url.query, keep_blank_values=True)},
            {key.lower(): value for key, value in self.headers.items()},
            content,
            self.server.url,
        )
        try:
            answer = self.server.router.answer(request)
        except Exception:  # the boundary of the process: a bug of the emulator is logged and told as ARM would
            log.exception("%s %s", self.command, self.path)
            message = "The sandbox's Azure emulator failed: its log says how."
            answer = Answer(500, {"error": {"code": "InternalServerError", "message": message}})
        return self._send(answer)

    def _send(self, answer: Answer) -> None:
        plain = isinstance(answer.body, str)
        data = b"" if answer.body is None else answer.body.encode() if plain else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        if data and "Content-Type" not in answer.headers:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("x-ms-request-id", str(uuid.uuid4()))
        self.send_header("x-ms-correlation-request-id", str(uuid.uuid4()))
        self.send_header("Cache-Control", "no-cache")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _serve


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, router: Router, authority: tls.Authority, folder: Path) -> None:
        self.router = router
        self._context = tls.server_context(authority, (host,), folder)
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__((host, 0), _Handler)
        self.url = f"https://{host}:{self.server_address[1]}"

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(_IDLE_SECONDS)
        # The handshake happens at the first read, in the connection's own thread.
        wrapped = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection from %s", client_address, exc_info=True)

    def close_all(self) -> None:
        with self._guard:
            connections, self._open = list(self._open), set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class ArmServer:
    """The emulated Azure. `on_change` is called after every change, from any thread.

    `home` is a folder for the authority's certificate (`ca_file`), which stays the same over restarts; without one, a
    temporary folder is used and removed at `stop`. `console` gives a machine's serial console by its VM id.
    """

    def __init__(
        self,
        on_change: Callable[[], None] = lambda: None,
        *,
        addresses: AddressPool | None = None,
        home: Path | None = None,
        faults: FaultBook | None = None,
        host: str = "127.0.0.1",
        console: Callable[[str], str] | None = None,
    ) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="fedspan-arm-")) if home is None else None
        self._home = home or Path(str(self._temporary))
        pool = addresses or AddressPool("127.250.0.0/22")
        self.cloud = Cloud(on_change, pool, faults or book())
        self._router = Router(self.cloud, console)
        self._host = host
        self._server: _Server | None = None
        self._threads: list[threading.Thread] = []
        self.ca_file = self._home / "ca.pem"
        self.add_subscription(DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, name="fedspan sandbox")

    def start(self) -> str:
        """Serves from now on; returns the URL."""
        authority = tls.open_authority(self._home)
        self._server = _Server(self._host, self._router, authority, self._home)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), name="arm", daemon=True),
            threading.Thread(target=self._run_schedules, name="arm schedules", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self.url

    def _run_schedules(self) -> None:
        clock = Clock()
        while not self.cloud.stopping.wait(_SCHEDULES_S):
            try:
                clock.tick(self.cloud)
            except Exception:  # the boundary of the thread: one failure must not be the end of all shutdowns to come
                log.exception("the machines' daily shutdowns")

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return self._server.url

    def powered_off(self, machine: str, vm_id: str) -> None:
        """A machine (by its resource ID and its own) has powered itself off: "stopped", and billed as before."""
        with self.cloud.lock:
            record = self.cloud.find(machine)
            if record is not None and (record.inner["vm_id"], record.inner["power"]) == (vm_id, "running"):
                record.inner["power"] = "stopped"
        self.cloud.on_change()

    def stop(self) -> None:
        """Ends the server, its connections and its operations; what existed is forgotten with this object."""
        self.cloud.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.close_all()
            self._server.server_close()
            for thread in self._threads:
                thread.join()
            self._server = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> ArmServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- identities --------------------------------------------------------------------------------------------
    def add_subscription(
        self,
        subscription_id: str,
        tenant_id: str | None = None,
        *,
        name: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> Subscription:
        """A further subscription; the same one when it is known already.

        Without a tenant it lies in the sandbox's own, and its principal may use it. With a tenant of its own it has a
        principal of its own, and nobody else's token opens it.
        """
        with self.cloud.lock:
            known = self.cloud.subscriptions.get(subscription_id.lower())
            if known is not None:
                return known
            tenant = (tenant_id or DEFAULT_TENANT).lower()
            principal = (tenant,) if tenant == DEFAULT_TENANT else (tenant, subscription_id.lower())
            made = Subscription(
                subscription_id.lower(),
                tenant,
                name or f"sandbox {subscription_id[:8]}",
                client_id or _made("client", *principal),
                client_secret or _made("secret", *principal),
            )
            self.cloud.subscriptions[made.id] = made
            return made

    def environment(self, subscription_id: str | None = None) -> dict[str, str]:
        """What a client's environment has to hold to use a subscription here: the real names, dummy secrets.

        ARM_* is read by the provider, AZURE_* by azure-identity, the CA bundle by every Python client.
        `ARM_ENDPOINT` is the resource manager's URL.
        """
        one = self.cloud.subscriptions[(subscription_id or DEFAULT_SUBSCRIPTION).lower()]
        host = self.url.removeprefix("https://")
        return {
            "ARM_SUBSCRIPTION_ID": one.id,
            "ARM_TENANT_ID": one.tenant_id,
            "ARM_CLIENT_ID": one.client_id,
            "ARM_CLIENT_SECRET": one.client_secret,
            "ARM_METADATA_HOSTNAME": host,
            "ARM_ENVIRONMENT": "fedspan-sandbox",
            "ARM_DISABLE_INSTANCE_DISCOVERY": "true",
            "ARM_ENDPOINT": self.url,
            "AZURE_SUBSCRIPTION_ID": one.id,
            "AZURE_TENANT_ID": one.tenant_id,
            "AZURE_CLIENT_ID": one.client_id,
            "AZURE_CLIENT_SECRET": one.client_secret,
            "AZURE_AUTHORITY_HOST": self.url,
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "SSL_CERT_FILE": str(self.ca_file),
        }

    # -- views -------------------------------------------------------------------------------------------------
    def machines(self) -> list[MachineSpec]:
        return view.machines(self.cloud)

    def inventory(self) -> list[InventoryItem]:
        return view.inventory(self.cloud)
