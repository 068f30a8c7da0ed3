"""Whatever runs on a machine, the computer that it runs on stays as it was."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from machine_lab import Lab, run, user_data

from deployer.sandbox.machines import landlock

# Where the product's absolute paths would end up if somebody forgot the machine's root, and what root tools touch.
WATCHED = (
    "/opt",
    "/srv",
    "/var/lib/fedspan",
    "/etc/ssh",
    "/etc/systemd/system",
    "/etc/apt",
    "/usr/local/sbin",
    "/home",
)


def picture() -> dict[str, tuple[int, int, int]]:
    """Every path below the watched folders (three levels deep) and the home folder: mode, size, mtime."""
    found = {}
    for start in (*WATCHED, os.path.expanduser("~")):
        for folder, subfolders, files in os.walk(start):
            if folder.count("/") - start.count("/") >= 2 or folder.startswith(os.path.expanduser("~/.")):
                subfolders.clear()
            for name in (".", *files):
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if not folder.startswith("/tmp"):
                    found[path] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def test_root_tools_are_not_to_be_found(lab: Lab) -> None:
    client = lab.ssh(lab.boot())
    for tool in ("sudo", "su", "systemctl", "service", "apt", "apt-get", "dnf", "mount", "pkill", "ssh", "docker"):
        assert run(client, f"command -v {tool}") == (1, b"", b""), tool


def test_the_host_is_the_same_before_and_after(lab: Lab) -> None:
    before = picture()
    machine = lab.boot()
    client = lab.ssh(machine)
    attempts = (
        "mkdir -p $FEDSPAN_ROOT/opt/fedspan $FEDSPAN_ROOT/var/lib/fedspan; touch $FEDSPAN_ROOT/opt/fedspan/x",
        "python3 -m venv --without-pip $FEDSPAN_ROOT/opt/fedspan/venv",
        "touch ~/file; mkdir ~/.config; mktemp; echo x > $TMPDIR/y",
    )
    for attempt in attempts:
        assert run(client, attempt)[0] == 0, attempt
    sftp = client.open_sftp()
    sftp.mkdir("/etc/systemd")
    with sftp.open("/etc/systemd/x.service", "w") as file:
        file.write("[Unit]")
    lab.machines.change(machine["id"], running=False)
    lab.machines.change(machine["id"], running=True)
    lab.machines.remove(machine["id"])
    assert picture() == before


@pytest.mark.skipif(landlock.abi() < 2, reason="this kernel has no Landlock (5.19 and newer)")
def test_the_kernel_refuses_to_write_outside_of_the_machine(lab: Lab, tmp_path: Path) -> None:
    victim = tmp_path / "file"
    victim.write_text("mine")
    victim.chmod(0o666)
    tmp_path.chmod(0o777)
    client = lab.ssh(lab.boot())
    for attempt in (
        f"echo theirs > {victim}",
        f"rm -f {victim}; test -e {victim} && exit 1",
        f"mv {victim} $HOME/stolen",
        f"ln {victim} $HOME/link",
        f"touch {tmp_path}/new",
        f"mkdir {tmp_path}/new",
        f"truncate -s 0 {victim}",
        f'{sys.executable} -c \'open("{tmp_path}/new", "w")\'',
        "touch /opt/fedspan-was-here",
        "setsid -w sh -c 'touch /opt/fedspan-was-here'",
    ):
        assert run(client, attempt)[0] != 0, attempt
    assert victim.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [victim]
    # The usual devices and temporary files of the machine's own go on working.
    assert run(client, "echo x > /dev/null; python3 -c 'import multiprocessing; multiprocessing.Lock()'") == (
        0,
        b"",
        b"",
    )


@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel's Landlock does not hold signals (6.12 and newer)")
def test_the_kernel_refuses_to_signal_processes_of_the_host(lab: Lab) -> None:
    client = lab.ssh(lab.boot())
    code, _, err = run(client, f"kill -0 {os.getpid()}")
    assert code != 0
    assert b"not permitted" in err
    assert run(client, "sleep 9 & kill $!")[0] == 0


def test_write_files_can_not_leave_the_machine(lab: Lab) -> None:
    machine = lab.boot(
        user_data(write_files=[{"path": "/../../../../outside", "content": "x"}, {"path": "/a/b", "content": "y"}])
    )
    assert Path(machine["root"], "a/b").read_text() == "y"
    log = Path(machine["console"]).read_text()
    assert "leads out of the machine" in log or Path(machine["root"], "outside").exists()
    assert not Path(machine["root"], "../../../../outside").resolve().exists()
