"""A TCP relay that can be watched, slowed and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    """A TCP relay in threads; without a target an HTTP CONNECT proxy. `cut()` breaks what is open and refuses more."""

    def __init__(self, target: tuple[str, int] | None = None, *, status: str = "200 OK") -> None:
        self._target = target
        self._status = status
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.down = False
        self.up_bytes = self.down_bytes = 0
        self.pause = 0.0  # seconds after each piece of at most 64 KiB
        self.seen: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        target = self._target
        if target is None:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                if not piece:
                    return
                head += piece
            name = head.split()[1].decode()
            self.seen.append(name)
            client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
            if not self._status.startswith("200"):
                client.close()
                return
            host, _, port = name.rpartition(":")
            target = (host, int(port))
        try:
            upstream = socket.create_connection(target, 5)
        except OSError:
            client.close()
            return
        upstream.settimeout(None)
        with self._lock:
            self._open += [client, upstream]
        for one, other, up in ((client, upstream, True), (upstream, client, False)):
            threading.Thread(target=self._pump, args=(one, other, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if up:
                    self.up_bytes += len(data)
                else:
                    self.down_bytes += len(data)
                time.sleep(self.pause)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self.down = True
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self.cut()
        self._server.close()
