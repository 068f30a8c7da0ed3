"""One SSH connection to a machine: commands as argv, output by the line, byte streams, several at once."""

from __future__ import annotations

import codecs
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import paramiko

from deployer.errors import MachineError, UnreachableError
from deployer.ssh.exchange import PACKET, Exchange

WINDOW = 64 << 20
"""Receive window of a channel, bytes: 64 MiB keeps a link of 1 Gbit/s and 500 ms full."""

COMMAND_TIMEOUT_S = 600.0
"""No command of a bootstrap runs longer; callers that follow a log or copy data pass None."""

OUTPUT_LIMIT = 4 << 20
"""Bytes of each stream that `run` keeps (its end); lines go to `on_line` in full."""

StreamName = Literal["stdout", "stderr"]
OnLine = Callable[[StreamName, str], None]


@dataclass(frozen=True)
class Completed:
    """A command that has ended. `status` is its exit status, or minus one where a signal killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def remote_command(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """argv as the one string that SSH sends to the login shell, every word quoted.

    Args:
        env: set by `env`, as sshd accepts no variables by default; they show in the machine's process list, so
            nothing secret goes here.
        cwd: working folder on the machine.
    """
    words = list(argv)
    if env:
        words = ["env", *(f"{key}={value}" for key, value in sorted(env.items())), *words]
    command = " ".join(shlex.quote(word) for word in words)
    return f"cd {shlex.quote(cwd)} && {command}" if cwd else command


class Session:
    """An authenticated connection. Channels may be opened from several threads.

    Args:
        transport: connected and authenticated.
        name: what messages call the machine, usually the participant's name.
        user: whom it was logged in as.
        address: dialled address, for messages.
        port: dialled port.
    """

    def __init__(self, transport: paramiko.Transport, *, name: str, user: str, address: str, port: int) -> None:
        self.transport = transport
        self.name = name
        self.user = user
        self.address = address
        self.port = port

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every command on it."""
        self.transport.close()

    @property
    def alive(self) -> bool:
        return self.transport.is_active()

    def open(self, command: str) -> Exchange:
        """Starts a command whose streams the caller moves itself."""
        try:
            channel = self.transport.open_session(window_size=WINDOW, max_packet_size=PACKET, timeout=30)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.lost(error) from error
        return Exchange(self, channel)

    def lost(self, error: BaseException | None = None) -> UnreachableError:
        """The error for a connection that broke in the middle."""
        return UnreachableError(
            f"the SSH connection to {self.address} port {self.port} broke",
            participant=self.name,
            why=str(error) or type(error).__name__ if error else "the machine closed it",
            next_step="run the same command again: it goes on where it stopped",
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float | None = COMMAND_TIMEOUT_S,
        check: bool = True,
    ) -> Completed:
        """Runs a command to its end.

        Args:
            argv: each word is quoted for the machine's shell.
            input: given to its standard input, which is closed then.
            on_line: called with ("stdout" or "stderr", line without its end) as lines arrive, one at a time.
            env, cwd: see `remote_command`.
            timeout_s: seconds until it is given up; None waits for ever.
            check: raise where the status is not 0.

        Raises:
            MachineError: status other than 0 (the end of its stderr is the cause), or the time-out.
            UnreachableError: the connection broke.
        """
        exchange = self.open(remote_command(argv, env, cwd))
        order = threading.Lock()  # two threads drain the two streams, `on_line` sees one line at a time
        kept: dict[StreamName, _Lines] = {
            "stdout": _Lines("stdout", on_line, order),
            "stderr": _Lines("stderr", on_line, order),
        }
        with exchange:
            status = exchange.finish(input or b"", kept["stdout"], kept["stderr"], timeout_s=timeout_s, argv=argv)
        for lines in kept.values():
            lines.end()
        done = Completed(tuple(argv), status, kept["stdout"].text, kept["stderr"].text)
        if check and status != 0:
            raise self.failed(done)
        return done

    def failed(self, done: Completed) -> MachineError:
        """The error for a command that ended badly."""
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return MachineError(
            f"`{shlex.join(done.argv[:6])}{' …' if len(done.argv) > 6 else ''}` ended with status {done.status}",
            participant=self.name,
            why="\n".join(said[-8:]) or None,
        )


class _Lines:
    """Cuts a byte stream into lines for `on_line` and keeps its last `OUTPUT_LIMIT` characters."""

    def __init__(self, name: StreamName, on_line: OnLine | None, order: threading.Lock) -> None:
        self._name = name
        self._on_line = on_line
        self._order = order
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._partial = ""
        self._pieces: list[str] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        self._pieces.append(text)
        self._size += len(text)
        while self._size - len(self._pieces[0]) > OUTPUT_LIMIT:
            self._size -= len(self._pieces.pop(0))
        if self._on_line is not None:
            *lines, self._partial = (self._partial + text).split("\n")
            with self._order:
                for line in lines:
                    self._on_line(self._name, line.rstrip("\r"))

    def end(self) -> None:
        rest = self._decoder.decode(b"", final=True)
        if rest:
            self._pieces.append(rest)
        if self._on_line is not None and self._partial + rest:
            self._on_line(self._name, self._partial + rest)

    @property
    def text(self) -> str:
        return "".join(self._pieces)
