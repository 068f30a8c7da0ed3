"""A running command on a machine: its three streams and its exit status."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import paramiko

from deployer.errors import MachineError, UnreachableError

if TYPE_CHECKING:
    from deployer.ssh.session import Session

PACKET = 32 << 10
"""Largest packet, bytes: what every server accepts (RFC 4254 section 5.2 asks for 32 KiB at least)."""


OnBytes = Callable[[int, int], None]
"""Called as bytes move, with (moved so far, of all)."""


class Sink(Protocol):
    """Whatever takes bytes: a file, a tar reader's feeder."""

    def write(self, data: bytes, /) -> object: ...


class Exchange:
    """A running command: its three streams and its exit status."""

    def __init__(self, session: Session, channel: paramiko.Channel) -> None:
        self.session = session
        self.channel = channel
        self._trouble: list[BaseException] = []

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The command ends; on a connection that is broken there is nothing to close."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.close()

    def write(self, data: bytes | memoryview) -> int:
        """Sends to standard input. One packet a call: `sendall` copies what is left each time, quadratic in size."""
        view = memoryview(data)
        for start in range(0, len(view), PACKET):
            try:
                self.channel.sendall(bytes(view[start : start + PACKET]))
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise self.session.lost(error) from error
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def close_input(self) -> None:
        # A command that has ended already closed its side: not an error, its status tells.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.shutdown_write()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of standard output; empty at its end (`size` -1: what is there, up to 1 MiB)."""
        try:
            return self.channel.recv(size if size > 0 else 1 << 20)
        except TimeoutError as error:
            raise self.session.lost(error) from error

    def read_exactly(self, size: int, timeout_s: float | None = 60.0) -> bytes:
        """`size` bytes of standard output, or fewer where it ends before.

        Args:
            timeout_s: seconds of silence after which the connection counts as lost.
        """
        self.channel.settimeout(timeout_s)
        data = bytearray()
        while len(data) < size and (more := self.read(size - len(data))):
            data += more
        self.channel.settimeout(None)
        return bytes(data)

    def finish(
        self,
        feed: bytes | Iterable[bytes],
        stdout: Sink,
        stderr: Sink,
        *,
        timeout_s: float | None = None,
        argv: Sequence[str] = (),
    ) -> int:
        """Feeds standard input, drains both outputs, and returns the exit status.

        Args:
            feed: bytes, or pieces of them made as they are sent.
            timeout_s: seconds for all of it.

        Raises:
            MachineError: it took longer than `timeout_s`.
            UnreachableError: the connection broke before the exit status came.
        """
        pieces = [feed] if isinstance(feed, bytes) else feed
        workers = [
            threading.Thread(target=self._guard, args=(self._pump, self.channel.recv_stderr, stderr), daemon=True),
            threading.Thread(target=self._guard, args=(self._feed, pieces), daemon=True),
            threading.Thread(target=self._guard, args=(self._pump, self.channel.recv, stdout), daemon=True),
        ]
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():  # short joins: an endless one would not let Ctrl-C through
                    worker.join(0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic())))
                    if deadline is not None and time.monotonic() >= deadline and worker.is_alive():
                        raise MachineError(
                            f"`{shlex.join(list(argv)[:6])}` did not end within {timeout_s:.0f} s",
                            participant=self.session.name,
                            next_step="look at the machine with `fedspan ssh`, then run the same command again",
                        )
        finally:
            if any(worker.is_alive() for worker in workers):
                self.close()
        if self._trouble:
            raise self._trouble[0]
        return self.status()

    def status(self) -> int:
        """The exit status of a command whose output has ended."""
        if not self.channel.status_event.wait(30) or (
            self.channel.exit_status == -1 and not self.session.transport.is_active()
        ):
            raise self.session.lost(self.session.transport.get_exception())
        return self.channel.exit_status

    def _guard(self, work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except BaseException as error:  # handed to the caller's thread, which raises it
            self._trouble.append(error)
            self.close()

    def _feed(self, pieces: Iterable[bytes]) -> None:
        try:
            for piece in pieces:
                self.write(piece)
        except UnreachableError:
            # The command ended without reading all of its input. Its status and its stderr say why; only a broken
            # connection is an error of its own, and `status` notices that.
            return
        self.close_input()

    @staticmethod
    def _pump(receive: Callable[[int], bytes], sink: Sink) -> None:
        while data := receive(1 << 20):
            sink.write(data)
