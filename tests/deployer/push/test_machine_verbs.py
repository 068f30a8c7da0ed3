"""`fedspan ssh`, `cp` and `logs`, typed as a user types them, against a machine that the ledger knows."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.copies import Side, parse_side
from deployer.errors import UsageError
from deployer.keys import KeyStore
from deployer.ledger import Ledger
from deployer.sandbox.machines.standalone import machines
from startup_kits.example import example
from startup_kits.workspace import Workspace
from tests.deployer.push.conftest import SSH_PORT, Box, boot

FEDSPAN = str(Path(sys.executable).with_name("fedspan"))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def workspace(machine: Box, tmp_path: Path) -> Workspace:
    (tmp_path / "federation.yml").write_text(example())
    made = Workspace.find(tmp_path / "federation.yml")
    made.ensure()
    Ledger(made.ledger_path).record(
        "site-1",
        "started",
        role="site",
        target="host",
        address=machine.address,
        ssh_port=machine.port,
        ssh_user=machine.user,
        outputs={"key_path": str(machine.key_path), "known_hosts": str(machine.known_hosts)},
    )
    return made


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "COLUMNS": "200"}


@pytest.fixture
def fedspan(workspace: Workspace, tmp_path: Path) -> Run:
    def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FEDSPAN, *words],
            cwd=tmp_path,
            env=environment(tmp_path),
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_one_command_with_its_words_its_streams_and_its_status(fedspan: Run) -> None:
    done = fedspan("ssh", "site-1", "--", "sh", "-c", 'echo "$1"; echo err >&2; exit 7', "sh", "a  'b'")
    assert done.stdout == "a  'b'\n"
    assert done.stderr == "err\n"
    assert done.returncode == 7


def test_what_is_piped_in_reaches_the_command(fedspan: Run) -> None:
    assert fedspan("ssh", "site-1", "--", "wc", "-c", stdin="x" * 100_000).stdout.strip() == "100000"


def test_a_shell_in_a_terminal_of_the_same_size(tmp_path: Path) -> None:
    (tmp_path / "federation.yml").write_text(example())
    workspace = Workspace.find(tmp_path / "federation.yml")
    workspace.ensure()
    with machines() as some:
        where = {"address": boot(some, KeyStore(workspace.ssh_dir), "site-1", 8002), "ssh_port": SSH_PORT}
        Ledger(workspace.ledger_path).record(
            "site-1", "started", role="site", target="aws", ssh_user="fedspan", outputs={}, **where
        )
        in_a_terminal(tmp_path)


def in_a_terminal(tmp_path: Path) -> None:
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    process = subprocess.Popen(
        [FEDSPAN, "ssh", "site-1"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=environment(tmp_path),
        start_new_session=True,
    )
    before = termios.tcgetattr(slave)
    try:
        os.write(master, b"stty size; echo on-$((40 + 2)); exit 5\n")
        seen, deadline = b"", time.monotonic() + 30
        while b"on-42" not in seen and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 4096)
        assert b"on-42" in seen
        assert b"33 111" in seen
        assert process.wait(60) == 5
        assert termios.tcgetattr(slave) == before  # the terminal is as it was
    finally:
        if process.poll() is None:
            process.kill()
        os.close(master)
        os.close(slave)


def test_a_folder_goes_there_and_back_and_not_twice(fedspan: Run, machine: Box, tmp_path: Path) -> None:
    data = tmp_path / "digits"
    data.mkdir()
    (data / "a.csv").write_text("1,2\n")
    (data / "b.csv").write_text("3,4\n")
    done = fedspan("cp", "digits", "site-1:/srv/data/digits")
    assert done.returncode == 0, done.stderr
    assert "2 files, 8 bytes" in done.stdout
    assert (machine.root / "srv/data/digits/b.csv").read_text() == "3,4\n"
    assert "nothing to do" in fedspan("cp", "digits", "site-1:/srv/data/digits").stdout
    assert fedspan("cp", "site-1:/srv/data/digits", "back").returncode == 0
    assert (tmp_path / "back" / "a.csv").read_text() == "1,2\n"


def test_copying_into_a_folder_leaves_what_else_is_there(fedspan: Run, machine: Box, tmp_path: Path) -> None:
    there = machine.root / "srv/data"
    there.mkdir(parents=True)
    (there / "other").write_text("other")
    (tmp_path / "new.csv").write_text("new")
    assert fedspan("cp", "new.csv", "site-1:/srv/data").returncode == 0
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "m.csv").write_text("more")
    assert fedspan("cp", "more", "site-1:/srv/data").returncode == 0
    assert fedspan("cp", "more", "site-1:/srv/data/").returncode == 0
    names = sorted(str(path.relative_to(there)) for path in there.rglob("*"))
    assert names == ["m.csv", "more", "more/m.csv", "new.csv", "other"]


def test_a_file_comes_into_the_folder_here_or_under_the_name_given(fedspan: Run, machine: Box, tmp_path: Path) -> None:
    machine.root.joinpath("srv").mkdir()
    machine.root.joinpath("srv/model.bin").write_bytes(b"\0model")
    assert fedspan("cp", "site-1:/srv/model.bin", ".").returncode == 0
    assert fedspan("cp", "site-1:/srv/model.bin", "other.bin").returncode == 0
    assert (tmp_path / "model.bin").read_bytes() == (tmp_path / "other.bin").read_bytes() == b"\0model"
    machine.root.joinpath("home/mine").write_text("relative paths start at the login's home")
    assert fedspan("cp", "site-1:mine", "mine").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("cp", "a", "b"), 2, "one side of a copy is here"),
        (("cp", "site-1:/a", "site-2:/b"), 2, "one side of a copy is here"),
        (("cp", "nothing-here", "site-1:/x"), 2, "nothing-here does not exist"),
        (("cp", "site-1:/nothing", "x"), 17, "does not exist"),
        (("ssh", "site-9"), 2, "the ledger knows site-1"),
        (("logs", "site-1"), 17, "runtime.log"),
        (("logs", "site-1", "--since", "yesterday"), 2, "--since 10m"),
    ],
)
def test_what_cannot_be_done_is_said(fedspan: Run, words: tuple[str, ...], code: int, said: str) -> None:
    done = fedspan(*words)
    assert said in done.stderr
    assert done.returncode == code


def test_the_log_by_lines_and_as_json(fedspan: Run, machine: Box) -> None:
    log = machine.root / "var/lib/fedspan/state/runtime.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"2026-11-21 09:00:{second:02},000 INFO line {second}\n" for second in range(60)))
    assert fedspan("logs", "site-1", "--tail", "2").stdout.splitlines()[0].endswith("line 58")
    assert len(fedspan("logs", "site-1", "--since", "2026-11-21T09:00:50").stdout.splitlines()) == 10
    assert '"participant": "site-1"' in fedspan("--json", "logs", "site-1", "--tail", "1").stdout


def test_sides_of_a_copy() -> None:
    assert parse_side("site-1:/srv/data") == Side("site-1", "/srv/data")
    assert parse_side("./site-1:x") == Side(None, "./site-1:x")
    assert parse_side("/tmp/a:b") == Side(None, "/tmp/a:b")
    with pytest.raises(UsageError):
        parse_side("site-1:")
