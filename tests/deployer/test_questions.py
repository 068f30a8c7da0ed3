"""Questions on a pseudo-terminal: each stands there to be read, alone, and what is typed answers that one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deployer.ssh import fingerprint, read_pins
from tests.deployer.push.conftest import Box, start_box

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"  # the cursor, while a live table is drawn over what stands there, and after

REAP = """
from contextlib import contextmanager
from types import SimpleNamespace
from deployer import session_reap
from deployer.live import Silent
from deployer.settle import Found, Whose

thing = Found("aws", "aws:ec2/vpc:Vpc", "vpc-1", "site-1-vpc", "eu-central-1")
orphan = session_reap.Orphan(thing, Whose("digits", "d1", "site-1"), True, 0.0, 0.0)

class Work:  # what finds and deletes in the clouds
    notes, asked, deployment_id = [], ["aws eu-central-1"], None
    def __init__(self, *_):
        self.left = [orphan]
    def find(self):
        return self.left
    def chosen(self, orphans):
        return orphans
    def delete(self, orphans):
        print("deleted", *(one.thing.id for one in orphans), flush=True)
        return []

@contextmanager
def opened(*_, **how):
    yield SimpleNamespace(crew=SimpleNamespace(screen=Silent()), show=lambda live: None)

session_reap.Reap, session_reap.opened = Work, opened
session_reap._deployment = lambda workspace: SimpleNamespace(members={})
session_reap.context.workspace = lambda: SimpleNamespace(kits_dir=None)
session_reap.reap([], None)
"""

DOWN = """
from contextlib import contextmanager
from types import SimpleNamespace
from deployer import session_down
from deployer.ledger import Row
from deployer.live import Silent

class Realm:
    installed = False
    def engine_root(self):
        if not self.installed:
            session_down.context.confirm("Install pulumi?")
        self.installed = True

class Work:
    def __init__(self, *_):
        pass
    def jobs(self, *_):
        pass
    def destroy(self):
        realm.engine_root()
        return SimpleNamespace()

@contextmanager
def opened(*_):
    yield SimpleNamespace(crew=SimpleNamespace(screen=Silent()), show=lambda live: None)

realm, row = Realm(), Row("site-1", "site", "aws", "registered")
session_down.Down, session_down.opened, session_down.deployed = Work, opened, lambda ledger, names: [row]
session_down.without_spec = lambda *_: SimpleNamespace(members={})
session_down.conclude = lambda *_: print("nothing left", flush=True)
session_down.down(SimpleNamespace(realm=realm, ledger=None, by="lead"), None, None, [], False, False)
"""


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDSPAN_")}
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, b"\x28\x00\xc8\x00\x00\x00\x00\x00")  # 40 rows of 200
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "TERM": "xterm", "HOME": str(folder), **environment},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        self.text = ""

    def read(self) -> bool:
        """Take what is new on the screen; False once nothing can come any more."""
        if not select.select([self.main], [], [], 0.1)[0]:
            return True
        try:
            chunk = os.read(self.main, 65536)
        except OSError:
            return False
        self.text += chunk.decode(errors="replace")
        return bool(chunk)

    def asked(self, question: str, answer: str) -> str:
        """Wait for a question, answer it; what stood there before."""
        end = time.monotonic() + 120
        while (found := re.search(question, self.text)) is None:
            assert time.monotonic() < end, self.text
            assert self.read(), self.text
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        assert before.rfind(HIDDEN) <= before.rfind(SHOWN), f"a live table is drawn over the question: {before!r}"
        os.write(self.main, answer.encode())
        return before

    def end(self) -> int:
        """The exit code."""
        while self.read():
            pass
        return self.process.wait(60)

    def close(self) -> None:
        """End what still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()


def test_down_asks_for_a_missing_engine_before_the_live_table(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal([sys.executable, "-c", DOWN], tmp_path)
    terminals.append(terminal)
    terminal.asked(r"Delete everything of site-1\? \[y/N\] ", "y\n")
    terminal.asked(r"Install pulumi\? \[y/N\] ", "y\n")
    assert terminal.end() == 0, terminal.text
    assert "nothing left" in terminal.text


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[dict[str, Box]]:
    """Machines whose host keys nobody knows."""
    made: dict[str, Box] = {}
    try:
        for name in ("site-1", "site-2", "site-3"):
            made[name] = start_box(tmp_path / "boxes", name, False, None, {})
        yield made
    finally:
        for box in made.values():
            box.stop()


def test_reap_asks_before_anything_is_drawn_over_the_question(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal([sys.executable, "-c", REAP], tmp_path)
    terminals.append(terminal)
    assert "1 resources that no stack knows of" in terminal.asked(r"Delete 1 resources\? \[y/N\] ", "y\n")
    assert terminal.end() == 0, terminal.text
    assert "deleted vpc-1" in terminal.text
    assert "reap: 1 of 1 resources deleted, 0 left" in terminal.text


def test_each_unknown_host_key_is_asked_about_alone_and_before_anything_is_done(
    tmp_path: Path, boxes: dict[str, Box], terminals: list[Terminal]
) -> None:
    known = boxes["site-3"]  # of which nothing is asked
    host = {"target": "host", "host": "127.0.0.1", "user": "fedspan", "key": str(known.key_path)}
    sites = {name: {**host, "ssh_port": box.port} for name, box in boxes.items()}
    sites["site-3"]["host_key"] = " ".join(known.host_public_key.split()[:2])
    admins = {"ana@hospital-a.example": {"role": "lead"}}
    spec = {"version": 1, "name": "digits", "server": {"target": "kit"}, "sites": sites, "admins": admins}
    (tmp_path / "federation.yml").write_text(yaml.safe_dump(spec))
    terminal = Terminal(
        [sys.executable, "-m", "deployer.cli", "up"], tmp_path, FEDSPAN_PASSPHRASE="correct horse battery staple"
    )
    terminals.append(terminal)
    for name, answer in (("site-1", "y\n"), ("site-2", "n\n")):
        before = terminal.asked(rf"{name}: is that its key\? \[y/N\] ", answer)
        told = re.findall(r"\[127\.0\.0\.1\]:(\d+) shows the host key (\S+)", before)
        assert told == [(str(boxes[name].port), fingerprint(boxes[name].host_public_key))]
    assert terminal.end() == 13, terminal.text
    assert "the answer was no" in terminal.text
    pins = tmp_path / ".fedspan" / "ssh" / "known_hosts"
    assert [pin.fingerprint for pin in read_pins(pins, "127.0.0.1", boxes["site-1"].port)] == [
        fingerprint(boxes["site-1"].host_public_key)
    ]
    assert read_pins(pins, "127.0.0.1", boxes["site-2"].port) == []
    assert HIDDEN not in terminal.text  # nothing was begun
