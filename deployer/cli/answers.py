"""What somebody types at a question: a line, or Ctrl-C, which must never be slept over.

with answers() as next_line:
    show the question
    line = next_line()
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def answers() -> Iterator[Callable[[], str]]:
    """Gives what waits for the next line of standard input. Ctrl-C ends that, whatever it means while engines run.

    `input()` looks for signals, then reads: Ctrl-C in the instant between the two, as where somebody answers a question
    as soon as it stands there, is heard only after the next key. Here the wait itself ends: Python writes a byte for
    each signal to a descriptor (`signal.set_wakeup_fd`) that is waited for beside the terminal.

    What it gives raises:
        KeyboardInterrupt: Ctrl-C. In the main thread only, as Python has it.
        EOFError: there is no further line.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _read
        return
    heard, told = socket.socketpair()
    with heard, told:
        told.setblocking(False)
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: _read_beside(heard)
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGINT, handler)


def _read_beside(signals: socket.socket) -> str:
    while sys.stdin not in select.select([sys.stdin, signals], [], [])[0]:
        signals.recv(64)  # its handler has its turn before the next wait
    return _read()


def _read() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
