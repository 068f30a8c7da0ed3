"""An HTTP server of the emulator: with TLS the resource manager's, without it the machines' metadata service."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from deployer.sandbox.azure.web import Answer, Request

log = logging.getLogger(__name__)
_IDLE_SECONDS = 120
_MAX_BODY = 4 << 20


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener
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
            answer = self.server.answer(request)
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


class Listener(ThreadingHTTPServer):
    """Serves on a free port of `host` from `start` on. `answer` gives the answer to a request; `url` says where."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, answer: Callable[[Request], Answer], context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self._context = context
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__((host, 0), _Handler)
        self.url = f"{'https' if context else 'http'}://{host}:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name=self.url, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(_IDLE_SECONDS)
        # The handshake happens at the first read, in the connection's own thread.
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection from %s", client_address, exc_info=True)

    def stop(self) -> None:
        """Ends the server and its connections."""
        self.shutdown()
        with self._guard:
            connections, self._open = list(self._open), set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()
