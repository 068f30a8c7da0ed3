"""A TCP relay that can be watched, slowed and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    """A TCP relay in threads; without a target an HTTP CONNECT proxy.

    `cut()` breaks what is open and refuses more. `freeze()` is a black hole: nothing is broken, nothing is refused, and
    no packet gets an answer, not even a new connection's first; `thaw()` ends it. `hold(n)` freezes the nth connection,
    `break_(n)` resets it.
    """

    def __init__(self, target: tuple[str, int] | None = None, *, status: str = "200 OK") -> None:
        self._target = target
        self._status = status
        self._open: list[socket.socket] = []
        self._pairs: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._lock = threading.Lock()
        self.down = False
        self.up_bytes = self.down_bytes = 0
        self.pause = 0.0  # seconds after each piece of at most 64 KiB
        self.seen: list[str] = []
        self._flows = threading.Event()
        self._flows.set()
        self._held: set[int] = set()
        self._count = 0
        self._fillers: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0)
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
            self._flows.wait()
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
            number = self._count
            self._pairs[number] = (client, upstream)
            self._count += 1
        for one, other, up in ((client, upstream, True), (upstream, client, False)):
            threading.Thread(target=self._pump, args=(one, other, up, number), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool, number: int = 0) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                while number in self._held:
                    time.sleep(0.05)
                sink.sendall(data)
                if up:
                    self.up_bytes += len(data)
                else:
                    self.down_bytes += len(data)
                time.sleep(self.pause)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        self._flows.clear()
        for _ in range(3):  # one is taken by the thread that accepts, and one fills the queue: the next gets no answer
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)
            time.sleep(0.05)

    def thaw(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._flows.set()

    def hold(self, *numbers: int) -> None:
        self._held = set(numbers)

    def break_(self, *numbers: int) -> None:
        for number in numbers:
            for sock in self._pairs.get(number, ()):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def connections(self) -> int:
        """How many there were so far."""
        return self._count

    def cut(self) -> None:
        self.down = True
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self.thaw()
        self.hold()
        self.cut()
        self._server.close()
