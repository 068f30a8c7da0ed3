"""`fedspan sandbox …`, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMuZ28LoB9GUp61pLMygjzaVcqudrOkmAY9nr6sEI6tX somebody"


def fedspan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from deployer.cli import main; main()", "sandbox", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_whole_life_of_a_sandbox(home: Path, tmp_path: Path) -> None:
    assert "no sandbox runs" in fedspan("status").stdout
    assert fedspan("env").returncode == 14
    started = fedspan("start")
    assert started.stdout.startswith("started: sandbox-")
    assert fedspan("start").stdout.startswith("runs already: sandbox-")

    (tmp_path / "key.pub").write_text(KEY)
    address, _, port = fedspan(
        "host", "box", "--key", str(tmp_path / "key.pub"), "--egress", "203.0.113.9"
    ).stdout.split()
    status = fedspan("status").stdout
    assert f"box                  running    {address}" in status
    assert f"who comes from {address} is 203.0.113.9 to the clouds' rules" in status
    document = json.loads(fedspan("status", "--json").stdout)
    assert document["running"] is True
    assert document["ssh_port"] == int(port)
    assert Path(document["machines"][0]["console"]).read_text()

    assert (
        fedspan("profile", "hospital-z", "--account", "123456789012").stdout
        == "profile hospital-z: account 123456789012\n"
    )
    wrong = fedspan("profile", "hospital-b", "--account", "123456789012")
    assert (wrong.returncode, "account 222222222222 already" in wrong.stderr) == (2, True)
    exports = fedspan("env", "--profile", "hospital-z").stdout
    shell = subprocess.run(
        ["sh", "-c", f"{exports}\necho $AWS_ACCESS_KEY_ID"], capture_output=True, text=True, check=True
    )
    assert shell.stdout.strip().endswith("123456789012")

    assert fedspan("stop").stdout == "stopped: its machines and resources are gone\n"
    assert json.loads(fedspan("status", "--json").stdout) == {"running": False}
    assert fedspan("stop").stdout == "no sandbox runs\n"


def test_faults_add_up_until_they_are_cleared(home: Path) -> None:
    assert fedspan("fault").stdout == "nothing goes wrong on purpose\n"
    fedspan("fault", "--delay", "vm=2.5", "--never-ssh", "site-1")
    assert fedspan("fault", "--fail", "address=none left", "--no-capacity", "eu-west-1a").stdout.splitlines() == [
        "vm takes 2.5 s",
        "no capacity in eu-west-1a",
        "site-1 never opens SSH",
        "address fails: none left",
    ]
    assert json.loads(fedspan("fault", "--clear", "--wrong-host-key", "site-2", "--json").stdout)["wrong_host_key"] == [
        "site-2"
    ]
    for wrong in ("--delay=vm", "--delay=vm=soon", "--delay=vm=-1", "--fail==x"):
        refused = fedspan("fault", wrong)
        assert refused.returncode == 2, refused
        assert "Traceback" not in refused.stderr


def test_engine_prints_where_the_stand_in_is(home: Path) -> None:
    root = Path(fedspan("engine").stdout.strip())
    assert os.access(root / "bin/pulumi", os.X_OK)


@pytest.mark.parametrize(
    "words", [["host", "x", "--key", "/nowhere"], ["profile", "x", "--account", "12"], ["nonsense"]]
)
def test_mistakes_get_one_clear_message(home: Path, words: list[str]) -> None:
    refused = fedspan(*words)
    assert refused.returncode in (2, 14)
    assert "Traceback" not in refused.stderr
    assert refused.stderr
