"""A shell on a machine, in this terminal: raw mode here, a pseudo-terminal there, its size kept the same."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType

import paramiko

from deployer.ssh.exchange import PACKET
from deployer.ssh.session import WINDOW, Session, remote_command


def interact(session: Session, argv: Sequence[str] = ()) -> int:
    """Runs a command, or the login shell, with this process's streams; returns its exit status.

    With a terminal on both ends of standard input and output the other side gets one too. Without, bytes pass through
    unchanged, both outputs apart: `fedspan ssh site-1 -- cat file > copy` gives the file.

    Raises:
        UnreachableError: the connection broke.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        channel = session.transport.open_session(window_size=WINDOW, max_packet_size=PACKET, timeout=30)
        if terminal:
            size = os.get_terminal_size(sys.stdout.fileno())
            channel.get_pty(os.environ.get("TERM", "xterm"), width=size.columns, height=size.lines)
        if argv:
            channel.exec_command(remote_command(argv))
        else:
            channel.invoke_shell()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise session.lost(error) from error
    with contextlib.closing(channel), _raw() if terminal else contextlib.nullcontext(), _resizing(channel, terminal):
        _pump(channel)
        # OpenSSH tells the end of the output first and how the command ended then: not to be closed between the two.
        told = channel.status_event.wait(30)
    if not told or (channel.exit_status == -1 and not session.alive):
        raise session.lost(session.transport.get_exception())
    return channel.exit_status


def _pump(channel: paramiko.Channel) -> None:
    """Moves bytes both ways until the other side has closed both outputs."""
    stdin = sys.stdin.fileno()
    inputs: list[int | paramiko.Channel] = [channel, stdin]
    while True:
        readable, _, _ = select.select(inputs, [], [])
        if channel in readable:
            moved = False
            while channel.recv_stderr_ready() and (data := channel.recv_stderr(1 << 16)):
                _write(2, data)
                moved = True
            if channel.recv_ready() and (data := channel.recv(1 << 16)):
                _write(1, data)
                moved = True
            if not moved and (channel.eof_received or channel.closed):
                return
        if stdin in readable:
            data = os.read(stdin, 1 << 15)
            if data:
                with contextlib.suppress(OSError):  # the command has ended: its output is still being read
                    channel.sendall(data)
            else:
                inputs.remove(stdin)
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    channel.shutdown_write()


def _write(stream: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(stream, view) :]


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setraw(stdin, termios.TCSADRAIN)  # the default would throw away what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(channel: paramiko.Channel, terminal: bool) -> Iterator[None]:
    if not terminal:
        yield
        return

    def resized(number: int, frame: FrameType | None) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        with contextlib.suppress(paramiko.SSHException, OSError):
            channel.resize_pty(width=size.columns, height=size.lines)

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
