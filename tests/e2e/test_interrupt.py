"""Ctrl-C on a pseudo-terminal, once and twice: the engine saves, `up` and `down` work afterwards, nothing is left."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from typing import Any

import pytest
from e2e_world import COMMAND, LEAD, World

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {LEAD: {"role": "lead"}},
}


class Terminal:
    """A command on a terminal of its own, as a user sees it: what is typed reaches its whole foreground group."""

    def __init__(self, world: World, *words: str) -> None:
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=world.fed,
            env={**world.environment, "TERM": "xterm"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            preexec_fn=lambda: _controlling(side),
        )
        os.close(side)
        self.text = ""

    def read(self, seconds: float = 0.1) -> None:
        """Take what is on the screen."""
        while select.select([self.main], [], [], seconds)[0]:
            try:
                chunk = os.read(self.main, 65536)
            except OSError:
                return
            if not chunk:
                return
            self.text += chunk.decode(errors="replace")
            seconds = 0.0

    def wait_for(self, pattern: str, limit: float = 180) -> None:
        """Until the screen has shown it."""
        end = time.monotonic() + limit
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            assert self.process.poll() is None, self.text
            self.read()

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self.main, keys.encode())

    def end(self, limit: float = 120) -> int:
        """The exit code, once it ends."""
        end = time.monotonic() + limit
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text
            self.read()
        self.read()
        os.close(self.main)
        return self.process.returncode


def _controlling(side: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(side, termios.TIOCSCTTY, 0)


def wait_for_machine(world: World, terminal: Terminal) -> None:
    """Until the cloud has made the machine, whose create is still under way for the engine."""
    end = time.monotonic() + 180
    while not any("ec2:instance" in entry for entry in world.inventory()):
        assert time.monotonic() < end, terminal.text
        assert terminal.process.poll() is None, terminal.text
        terminal.read(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_a_state_from_which_up_and_down_work(world: World, presses: int) -> None:
    world.write(SPEC)
    world.run("provision").ok()
    world.faults(delays={"ec2:instance": 6.0})
    terminal = Terminal(world, "up")
    terminal.wait_for(r"Change \d+ resources\?")
    terminal.type("y\n")
    wait_for_machine(world, terminal)
    terminal.type("\x03")
    terminal.wait_for("interrupted")
    if presses == 2:
        terminal.type("\x03")
        terminal.wait_for("interrupted again")
    assert terminal.end() == 130, terminal.text
    assert "fedspan up goes on from here, fedspan down takes everything away" in " ".join(terminal.text.split())
    assert "Traceback" not in terminal.text
    world.faults()
    world.run("up", "--yes").ok()
    machines = [entry for entry in world.inventory() if "ec2:instance" in entry]
    assert len(machines) == 1
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []


def test_no_at_the_question_changes_nothing(world: World) -> None:
    world.write(SPEC)
    world.faults()
    terminal = Terminal(world, "up")
    terminal.wait_for(r"Change \d+ resources\?")
    terminal.type("n\n")
    assert terminal.end() == 13, terminal.text
    assert "the answer was no" in terminal.text
    assert world.inventory() == []


def test_ctrl_c_at_the_question_changes_nothing(world: World) -> None:
    world.write(SPEC)
    terminal = Terminal(world, "up")
    terminal.wait_for(r"Change \d+ resources\?")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.text
    assert world.inventory() == []
