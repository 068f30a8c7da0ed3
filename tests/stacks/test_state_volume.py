"""The state volume's script, run for real by sh: only the commands that touch disks are stand-ins that write a log."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stacks.state_volume import script, unit

# Each stand-in notes its call; what it answers lies in files beside it.
STUBS = {
    "mountpoint": '[ -e "$HERE/mounted" ]',
    "findfs": 'if [ -e "$HERE/labelled" ]; then cat "$HERE/labelled"; else exit 1; fi',
    "blkid": 'exit "$(cat "$HERE/blkid-status" 2>/dev/null || echo 2)"',
    "lsblk": 'case "$*" in *TYPE*) echo disk;; *) echo x; [ ! -e "$2.parts" ] && [ ! -e "$3.parts" ] || echo x1;; esac',
    "cmp": 'shift 3; [ ! -s "$1" ]',
    "mkfs.ext4": "true",
    "mount": "true",
    "resize2fs": "true",
    "sleep": "true",
}


class Machine:
    """A folder with stand-in commands and a stand-in /dev."""

    def __init__(self, root: Path) -> None:
        self.root, self.bin, self.dev = root, root / "bin", root / "dev"
        self.log = root / "log"
        self.bin.mkdir()
        (self.dev / "disk" / "by-id").mkdir(parents=True)
        (self.dev / "disk" / "azure" / "scsi1").mkdir(parents=True)
        (self.dev / "null").symlink_to("/dev/null")
        (self.dev / "zero").symlink_to("/dev/zero")
        for name, body in STUBS.items():
            path = self.bin / name
            path.write_text(f'#!/bin/sh\nHERE={root}\necho "{name} $*" >> "{self.log}"\n{body}\n')
            path.chmod(0o755)

    def disk(self, name: str, link: str | None = None, *, partitions: bool = False, content: str = "") -> Path:
        path = self.dev / name
        path.write_text(content)
        if partitions:
            (self.dev / f"{name}.parts").touch()
        if link:
            (self.dev / link).symlink_to(path)
        return path

    def boot(self) -> subprocess.CompletedProcess[str]:
        program = self.root / "script"
        program.write_text(script())
        return subprocess.run(
            ["sh", str(program), str(self.dev), str(self.root / "state"), "4"],
            env={"PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def did(self, command: str) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [line for line in lines if line.startswith(f"{command} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


BOOT = "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0boot"
DATA = "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0data"


def test_an_empty_volume_is_formatted_and_mounted(machine: Machine) -> None:
    machine.disk("nvme0n1", BOOT, partitions=True, content="boot")
    data = machine.disk("nvme1n1", DATA)
    done = machine.boot()
    assert done.returncode == 0, done.stderr
    assert machine.did("mkfs.ext4") == [f"mkfs.ext4 -q -L fedspan-state {data}"]
    assert machine.did("mount") == [f"mount -o noatime,nosuid,nodev {data} {machine.root / 'state'}"]


def test_a_volume_of_ours_is_mounted_and_never_formatted(machine: Machine) -> None:
    data = machine.disk("nvme1n1", DATA, content="years of work")
    (machine.root / "labelled").write_text(str(data))
    assert machine.boot().returncode == 0
    assert machine.did("mkfs.ext4") == []
    assert str(data) in machine.did("mount")[0]
    assert machine.did("resize2fs") == [f"resize2fs {data}"]


def test_a_volume_with_somebody_s_file_system_is_refused(machine: Machine) -> None:
    machine.disk("nvme1n1", DATA)
    (machine.root / "blkid-status").write_text("0")
    done = machine.boot()
    assert done.returncode == 1
    assert "not one of fedspan's and not empty" in done.stderr
    assert machine.did("mkfs.ext4") == []
    assert machine.did("mount") == []


def test_a_volume_with_bytes_but_no_signature_is_refused(machine: Machine) -> None:
    machine.disk("nvme1n1", DATA, content="encrypted by something unknown")
    assert machine.boot().returncode == 1
    assert machine.did("mkfs.ext4") == []


def test_the_boot_disk_is_never_taken(machine: Machine) -> None:
    machine.disk("nvme0n1", BOOT, partitions=True)
    done = machine.boot()
    assert done.returncode == 1
    assert "no data disk" in done.stderr
    assert machine.did("mkfs.ext4") == []


def test_azure_s_logical_unit_is_found(machine: Machine) -> None:
    data = machine.disk("sdc", "disk/azure/scsi1/lun0")
    assert machine.boot().returncode == 0
    assert machine.did("mkfs.ext4") == [f"mkfs.ext4 -q -L fedspan-state {data}"]


def test_a_second_start_does_nothing(machine: Machine) -> None:
    (machine.root / "mounted").touch()
    assert machine.boot().returncode == 0
    assert machine.did("mount") == []


def test_the_unit_runs_the_script_once_at_each_boot() -> None:
    assert "ExecStart=/usr/local/sbin/fedspan-state-volume\n" in unit()
    assert "Type=oneshot\n" in unit()
    assert "WantedBy=multi-user.target\n" in unit()
    assert "@" not in script() + unit()
