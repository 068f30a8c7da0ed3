"""SFTP: the machine's folder is the root, and no link leads out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from machine_lab import Lab

Machine = tuple[Lab, dict[str, Any]]


def test_paths_mean_the_same_with_and_without_the_machines_root(machine: Machine) -> None:
    lab, its = machine
    sftp = lab.ssh(its).open_sftp()
    root = its["root"]
    assert sftp.normalize(".") == f"{root}/home/fedspan"
    assert sftp.normalize("/opt") == f"{root}/opt"
    with sftp.open("/opt/a", "w") as file:
        file.write("text")
    for spelling in (f"{root}/opt/a", "/opt/a", "/opt/../opt/a", "//opt/a", "../../opt/a"):
        with sftp.open(spelling) as file:
            assert file.read() == b"text"
    assert Path(root, "opt/a").read_text() == "text"
    assert "a" in sftp.listdir("/opt")
    assert sftp.stat("/../../../opt/a").st_size == 4


def test_what_a_push_needs_mkdir_modes_rename_over_and_truncate(machine: Machine) -> None:
    lab, its = machine
    sftp = lab.ssh(its).open_sftp()
    sftp.mkdir("/opt/tree.new", 0o700)
    with sftp.open("/opt/tree.new/x", "wb") as file:
        file.set_pipelined(True)
        for _ in range(64):
            file.write(os.urandom(32768))
    sftp.chmod("/opt/tree.new/x", 0o640)
    sftp.utime("/opt/tree.new/x", (1, 2))
    status = sftp.stat("/opt/tree.new/x")
    assert (status.st_mode & 0o777, status.st_size, status.st_mtime) == (0o640, 64 * 32768, 2)
    with sftp.open("/opt/old", "w") as file:
        file.write("old")
    sftp.posix_rename("/opt/tree.new/x", "/opt/old")
    assert sftp.stat("/opt/old").st_size == 64 * 32768
    with pytest.raises(OSError, match=r"\S"):
        sftp.rename("/opt/old", "/opt/tree.new")
    sftp.rename("/opt/tree.new", "/opt/tree")
    sftp.truncate("/opt/old", 5)
    assert sftp.stat("/opt/old").st_size == 5
    sftp.remove("/opt/old")
    sftp.rmdir("/opt/tree")
    with pytest.raises(FileNotFoundError):
        sftp.stat("/opt/tree")


def test_links_inside_work_and_links_out_lead_nowhere(machine: Machine) -> None:
    lab, its = machine
    sftp = lab.ssh(its).open_sftp()
    root = Path(its["root"])
    outside = root.parent / "setup.json"  # holds the host key, beside the machine's root
    sftp.mkdir("/srv/d")
    sftp.symlink("d", "/srv/relative")
    sftp.symlink("/srv/d", "/srv/absolute")
    with sftp.open("/srv/relative/f", "w") as file:
        file.write("x")
    assert sftp.listdir("/srv/absolute") == ["f"]
    for target in ("../../setup.json", "../../../../../../etc"):
        with pytest.raises(PermissionError):
            sftp.symlink(target, "/srv/out")
    # A link that a command made does not help either.
    (root / "srv/out").symlink_to(outside)
    (root / "srv/host").symlink_to("/etc")
    for attempt in (
        lambda: sftp.open("/srv/out").read(),
        lambda: sftp.open("/srv/out", "w"),
        lambda: sftp.stat("/srv/out"),
        lambda: sftp.chmod("/srv/out", 0o777),
        lambda: sftp.truncate("/srv/out", 0),
        lambda: sftp.listdir("/srv/host"),
        lambda: sftp.stat("/srv/host/passwd"),
        lambda: sftp.remove("/srv/host/passwd"),
        lambda: sftp.rename("/srv/relative/f", "/srv/host/f"),
        lambda: sftp.mkdir("/srv/host/d"),
        lambda: sftp.open("/srv/host/../shadow"),
    ):
        with pytest.raises(OSError, match=r"\S"):
            attempt()
    assert outside.stat().st_mode & 0o077 == 0
    assert sftp.lstat("/srv/out").st_size > 0  # the link itself may be looked at …
    sftp.remove("/srv/out")  # … and removed
    assert outside.exists()


def test_the_machines_commands_are_not_to_be_read_or_replaced_through_their_links(machine: Machine) -> None:
    lab, its = machine
    sftp = lab.ssh(its).open_sftp()
    with pytest.raises(PermissionError):
        sftp.open("/usr/bin/ls", "r+")
