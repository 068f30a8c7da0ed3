"""The daemon's control: JSON over HTTP on the sandbox's own loopback address, for those who know the token.

The token lies in `state.json`, which only its owner reads: other users of this computer can knock, but not enter.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

_LOG = logging.getLogger(__name__)
_MAX_BODY = 4 * 1024 * 1024
_TIMEOUT_S = 30.0
_MAX_AT_ONCE = 64


class Refusal(Exception):
    """An answer other than 200, with a reason that a user may read."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# (method, pattern of the path) -> function of (the pattern's groups, the request's JSON) that returns JSON.
Route = Callable[[Mapping[str, str], Any], Any]
Routes = Mapping[tuple[str, str], Route]


class Control:
    """Serves `routes` on a listening socket, a thread for each request."""

    def __init__(self, listener: socket.socket, token: str, routes: Routes) -> None:
        self._listener = listener
        self.token = token
        self._routes = [(method, re.compile(pattern), route) for (method, pattern), route in routes.items()]
        self._slots = threading.BoundedSemaphore(_MAX_AT_ONCE)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops listening. Requests that are being answered go on."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            _LOG.debug("control was not listening any more")
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                connection.close()  # somebody floods: those who know the token retry
                continue
            threading.Thread(target=self._serve, args=(connection, peer), name="control request", daemon=True).start()

    def _serve(self, connection: socket.socket, peer: Any) -> None:
        try:
            connection.settimeout(_TIMEOUT_S)
            _Handler(connection, peer, self)
        except (OSError, ValueError) as error:
            _LOG.debug("control: %s: %s", peer, error)
        finally:
            connection.close()
            self._slots.release()

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON for one request; never raises."""
        if not hmac.compare_digest(token.encode(), f"Bearer {self.token}".encode()):
            return 401, {"error": "wrong token"}
        known = False
        for its_method, pattern, route in self._routes:
            if match := pattern.fullmatch(path):
                known = True
                if its_method == method:
                    try:
                        return 200, route(match.groupdict(), json.loads(body) if body else None)
                    except Refusal as refusal:
                        return refusal.status, {"error": str(refusal)}
                    except (ValueError, TypeError, KeyError, AttributeError) as error:
                        _LOG.info("control: %s %s: %r", method, path, error)
                        return 400, {"error": f"{type(error).__name__}: {error}"}
                    except Exception as error:  # whatever a part of the sandbox does wrong, the daemon lives on
                        _LOG.exception("control: %s %s", method, path)
                        return 500, {"error": f"{type(error).__name__}: {error}"}
        return (405, {"error": f"{method} is not for {path}"}) if known else (404, {"error": f"no {path} here"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server_version = "fedspan-sandbox"
    sys_version = ""

    def __init__(self, connection: socket.socket, peer: Any, control: Control) -> None:
        self._control = control
        # The base class handles the request within its constructor; of the "server" it needs nothing.
        super().__init__(connection, peer, None)  # type: ignore[arg-type]  # the stubs want a server

    def _any(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self._reply(413, {"error": f"a body has at most {_MAX_BODY} bytes"})
            return
        body = self.rfile.read(int(length))
        status, answer = self._control.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
        self._reply(status, answer)

    do_GET = do_PUT = do_POST = do_DELETE = _any

    def _reply(self, status: int, answer: Any) -> None:
        data = json.dumps(answer, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug("control: " + format, *args)
