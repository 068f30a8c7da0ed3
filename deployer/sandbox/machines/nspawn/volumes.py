"""State volumes: a sparse file each, attached to its machine as a loop device, as a cloud attaches a disk.

The device appears on the running machine under the name that its cloud gives it; what is done with it is the machine's
business. A detached device goes by itself when nobody has it open any more, also when this process is killed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from deployer.sandbox.machines.nspawn import tools
from deployer.sandbox.machines.setup import volume_folder

SIZE = 16 << 30
"""Bytes, as the file system sees them; the file holds what was written."""


def image(volumes: str | Path, volume_id: str) -> Path:
    """The file that is the volume; made empty where there is none."""
    folder = volume_folder(volumes, volume_id)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "disk.img"
    if not path.exists():
        with open(path, "xb") as file:
            file.truncate(SIZE)
    return path


def link_of(device: str) -> str:
    """Where a machine finds a volume: EC2's device name as a Xen disk, or Azure's logical unit."""
    if device.startswith("lun"):
        return f"disk/azure/scsi1/{device}"
    return device.removeprefix("/dev/").replace("sd", "xvd", 1)


def _hold(path: Path) -> FileIO:
    """A loop device on a file, open: it stays until that is closed. Raises OSError, and then leaves none."""
    loop = tools.call(["losetup", "--find", "--show", str(path)]).strip()
    try:
        device = FileIO(loop, "r+")
    except OSError:
        tools.call(["losetup", "--detach", loop], check=False)
        raise
    try:
        # While it is open this only marks it: the kernel detaches it with the last user.
        tools.call(["losetup", "--detach", loop])
    except OSError:
        device.close()
        raise
    return device


class Attached:
    """The volumes of one running machine."""

    def __init__(self, volumes: str) -> None:
        self._volumes = volumes
        self._held: dict[str, tuple[FileIO, str]] = {}  # volume id -> (loop device, the machine's link to it)

    def attach(self, wanted: Iterable[tuple[str, str]]) -> None:
        """From now on exactly these (id, device) are attached to this computer. Raises OSError."""
        devices = dict(wanted)
        for volume in set(self._held) - set(devices):
            self._held.pop(volume)[0].close()
        for volume, device in devices.items():
            if volume not in self._held:
                self._held[volume] = (_hold(image(self._volumes, volume)), link_of(device))

    def show(self, dev: Path) -> None:
        """Makes the nodes and links in a machine's /dev, and takes those away that are no longer attached."""
        wanted = {link: str(device.name) for device, link in self._held.values()}
        for entry in [*dev.glob("xvd?"), *dev.glob("disk/azure/scsi1/lun*")]:
            if entry.relative_to(dev).as_posix() not in wanted and entry.is_symlink():
                node = dev / Path(os.readlink(entry)).name
                entry.unlink()
                node.unlink(missing_ok=True)
        for name, loop in wanted.items():
            node = dev / Path(loop).name
            link = dev / name
            if not node.exists():
                os.mknod(node, 0o660 | stat.S_IFBLK, os.stat(loop).st_rdev)
            if not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(f"/dev/{node.name}")

    def close(self) -> None:
        self.attach(())
