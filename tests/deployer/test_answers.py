"""A question on a pseudo-terminal: a line, its end, and Ctrl-C that nothing wakes the reading thread for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

ASK = """
import signal, sys, threading, time
from deployer.cli import context

handler = lambda number, frame: print("for the engines", flush=True)
signal.signal(signal.SIGINT, handler)

def press():
    time.sleep(0.3)  # by now the main thread waits; a signal that another thread takes leaves it there
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

if sys.argv[1:] == ["press"]:
    threading.Thread(target=press).start()
try:
    print("answer", repr(context.ask("Go on? [y/N] ")))
except KeyboardInterrupt:
    print("ended")
except EOFError:
    print("end of input")
assert signal.getsignal(signal.SIGINT) is handler
assert signal.set_wakeup_fd(-1) == -1
"""


def asked(keys: bytes, *words: str) -> str:
    """What the process says after the question, when `keys` are typed."""
    main, side = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", ASK, *words], stdin=side, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            os.write(main, keys)
            said, _ = child.communicate(timeout=60)
        finally:
            child.kill()
            child.wait()
    finally:
        os.close(main)
        os.close(side)
    assert child.returncode == 0, said
    question, _, rest = said.decode().partition("Go on? [y/N] ")
    assert question == ""
    return rest.strip()


@pytest.mark.parametrize(("keys", "heard"), [(b"y\n", "answer 'y'"), (b"\n", "answer ''"), (b"\x04", "end of input")])
def test_what_is_typed_is_the_answer(keys: bytes, heard: str) -> None:
    assert asked(keys) == heard


def test_ctrl_c_that_does_not_wake_the_reading_thread_ends_the_question() -> None:
    assert asked(b"", "press") == "ended"
