"""A kit's owner starts it here: `start.sh` and `stop.sh`, the real runtime, the real command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

FEDSPAN = Path(sys.executable).with_name("fedspan")
SPEC = """\
version: 1
name: digits
server: {target: kit, port: PORT}
sites:
  site-1: {target: kit, egress: [203.0.113.7/32], data: {digits: /srv/data/digits}}
admins:
  ana@hospital-a.example: {role: lead}
"""


def make_kits(folder: Path) -> tuple[Path, str, int]:
    folder.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    (folder / "federation.yml").write_text(SPEC.replace("PORT", str(port)))
    workspace = Workspace.find(folder / "federation.yml")
    source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "only for this test"})
    made = provision(workspace, load_spec(folder / "federation.yml"), source)
    return folder / "kits", made.ca_fingerprint, port


@dataclass
class Owner:
    """A person with kits, a home of their own, and the command."""

    kits: Path
    fingerprint: str
    port: int
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "FEDSPAN": str(FEDSPAN),
            "COLUMNS": "200",
            "FEDSPAN_BIND": "127.0.0.1",
        }

    def run(self, script: str, *words: str, kit: str = "site-1", kits: Path | None = None) -> tuple[int, str]:
        done = subprocess.run(
            [str((kits or self.kits) / kit / script), *words],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def server(self) -> tuple[str, ...]:
        return ("--server", f"127.0.0.1:{self.port}", "--ca-fingerprint", self.fingerprint)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    kits, fingerprint, port = make_kits(tmp_path / "digits")
    made = Owner(kits, fingerprint, port, tmp_path / "home")
    made.home.mkdir()
    yield made
    for kit in ("site-1", "server"):
        code, said = made.run("stop.sh", kit=kit)
        assert code == 0, said


@pytest.fixture
def running_server(owner: Owner) -> None:
    code, said = owner.run("start.sh", "--ca-fingerprint", owner.fingerprint, kit="server")
    assert code == 0, said
    assert f"server listens on port {owner.port}" in said


@pytest.mark.usefixtures("running_server")
def test_a_site_starts_registers_and_stops(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    code, said = owner.run("start.sh", *owner.server, "--data", f"digits={tmp_path / 'data'}")
    assert code == 0, said
    assert f"pinned the CA {owner.fingerprint}" in said
    assert f"site-1 is registered with 127.0.0.1:{owner.port}" in said
    log = re.search(r"log: (\S+)", said)
    assert log
    assert Path(log[1]).is_file()
    assert str(owner.home) in log[1]  # state is never in the kit
    data = yaml.safe_load((owner.kits / "site-1" / "local" / "data.yml").read_text())
    assert data == {"data": {"digits": str(tmp_path / "data")}}

    code, said = owner.run("start.sh")  # no question, no fingerprint: it is pinned
    assert code == 0, said
    assert "site-1 already runs" in said

    code, said = owner.run("stop.sh")
    assert code == 0, said
    assert "site-1 has stopped" in said
    code, said = owner.run("stop.sh")
    assert code == 0, said
    assert "site-1 is not running here" in said


@pytest.mark.usefixtures("running_server")
def test_a_copy_of_a_running_kit_is_refused_by_name(owner: Owner, tmp_path: Path) -> None:
    assert owner.run("start.sh", *owner.server)[0] == 0
    copy = tmp_path / "copy"
    shutil.copytree(owner.kits / "site-1", copy / "site-1")
    code, said = owner.run("start.sh", kits=copy)
    assert code == 13, said
    assert "already runs here from another copy" in said
    assert f"{owner.kits / 'site-1'}/stop.sh" in said


def test_the_first_start_wants_the_fingerprint_and_later_ones_keep_to_it(owner: Owner, tmp_path: Path) -> None:
    address = ("--server", f"127.0.0.1:{owner.port}")
    code, said = owner.run("start.sh", *address)
    assert code == 13, said
    assert owner.fingerprint in said
    assert "--ca-fingerprint" in said

    code, said = owner.run("start.sh", *address, "--ca-fingerprint", ":".join(["AB"] * 32))
    assert code == 4, said
    assert "of another CA" in said

    assert owner.run("start.sh", "--ca-fingerprint", owner.fingerprint, kit="server")[0] == 0
    assert owner.run("start.sh", *address, "--ca-fingerprint", owner.fingerprint)[0] == 0
    assert owner.run("stop.sh")[0] == 0
    other, fingerprint, _ = make_kits(tmp_path / "other")
    code, said = owner.run("start.sh", *address, "--ca-fingerprint", fingerprint, kits=other)
    assert code == 4, said
    assert "another digits than the one that was started here" in said
    assert owner.fingerprint in said
    assert fingerprint in said


def test_a_changed_kit_is_refused_before_it_runs(owner: Owner) -> None:
    script = owner.kits / "site-1" / "startup" / "participant.yml"
    script.write_text(script.read_text() + "# x\n")
    code, said = owner.run("start.sh", *owner.server)
    assert code == 4, said
    assert "startup/participant.yml" in said


def test_what_is_missing_is_asked_for(owner: Owner) -> None:
    code, said = owner.run("start.sh", "--ca-fingerprint", owner.fingerprint)
    assert code == 2, said
    assert "start.sh --server HOST:PORT" in said
    code, said = owner.run("start.sh", *owner.server, "--data", "digits=/nowhere/at/all")
    assert code == 2, said
    assert "no data lies at /nowhere/at/all" in said
    code, said = owner.run("start.sh", "--server", "http://x:1/", "--ca-fingerprint", owner.fingerprint)
    assert code == 2, said
    assert "is not HOST:PORT" in said


def test_not_registered_in_time_tells_the_agents_own_cause_and_it_goes_on_trying(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deployer import local_run
    from deployer.errors import NotRegisteredError

    monkeypatch.setattr(local_run, "REGISTER_DEADLINE_S", 3.0)
    monkeypatch.setenv("HOME", str(owner.home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    kit = owner.kits / "site-1"
    with pytest.raises(NotRegisteredError) as caught:
        local_run.start(kit, server=f"127.0.0.1:{owner.port}", ca_fingerprint=owner.fingerprint)
    assert "goes on trying" in str(caught.value)
    assert caught.value.why
    assert str(owner.port) in caught.value.why
    assert caught.value.log
    assert owner.run("start.sh", "--ca-fingerprint", owner.fingerprint, kit="server")[0] == 0
    local_run.start(kit)  # the server has come: it registers by itself
    assert "site-1 is registered" in capsys.readouterr().out


@pytest.mark.usefixtures("running_server")
def test_in_the_foreground_it_stays_and_a_signal_ends_it(owner: Owner) -> None:
    argv = [str(owner.kits / "site-1" / "start.sh"), "--foreground", *owner.server]
    process = subprocess.Popen(argv, env=owner.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 60
        socket_path = owner.home / ".local/state/fedspan/participants/digits/site-1/local.sock"
        while not socket_path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        code, said = owner.run("start.sh", "--foreground")
        assert code == 13, said
        assert "already runs" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
    finally:
        if process.poll() is None:
            process.kill()
        assert process.stdout is not None
        process.stdout.close()
    assert "is not running here" in owner.run("stop.sh")[1]


def test_an_admin_has_nothing_to_start(owner: Owner) -> None:
    kit = owner.kits / "ana@hospital-a.example"
    argv = [str(FEDSPAN), "kit", "start", str(kit)]
    done = subprocess.run(argv, capture_output=True, text=True, env=owner.environment, check=False)
    assert done.returncode == 4
    assert "nothing to start" in done.stderr
