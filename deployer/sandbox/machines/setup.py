"""What a machine's process is told: a JSON file at its start, JSON lines on its standard input afterwards."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.sandbox.model import MachineSpec, machine_from_json, machine_to_json

SHUTDOWN_S = 5.0
"""How long a machine that is shut down gives its processes between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Network:
    """What of the sandbox's network a machine has to know; it changes while the machine runs."""

    public: str  # the block of the sandbox's public addresses, e.g. "127.70.4.0/23": egress goes only there
    world: Mapping[str, str] = field(default_factory=dict)  # loopback source -> the address that rules know it by
    links: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # participant -> its link

    def seen_as(self, source: str) -> str:
        return self.world.get(source, source)


@dataclass(frozen=True)
class MachineSetup:
    """A machine's process starts from this. `folder` holds its root, its disk's first-boot data and its logs."""

    machine: MachineSpec
    folder: str
    volumes: str  # folder that holds a folder for each volume
    bind: str  # the loopback address that stands for the machine's private one
    network: Network
    never_ssh: bool = False  # faults
    wrong_host_key: bool = False
    watch_stdin: bool = True  # end when standard input ends, because then whoever started the machine is gone
    options: Mapping[str, str] = field(default_factory=dict)  # of the kind of machine, see `MachineKind`
    confine: bool = True  # let the kernel refuse writes outside the machine's folders, where it can (Landlock)

    @property
    def root(self) -> Path:
        return Path(self.folder, "root")

    def save(self, path: Path) -> None:
        data = {**dataclasses.asdict(self), "machine": machine_to_json(self.machine), "options": dict(self.options)}
        data["network"] = {**vars(self.network), "world": dict(self.network.world)}
        # User-data holds the machine's host key.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(data, file)

    @classmethod
    def load(cls, path: Path) -> MachineSetup:
        data: dict[str, Any] = json.loads(path.read_text())
        data["machine"] = machine_from_json(data["machine"])
        data["network"] = Network(**data["network"])
        return cls(**data)


def volume_folder(volumes: str | Path, volume_id: str) -> Path:
    """A volume's folder: ids of both clouds (ARM's have slashes) as one file name."""
    name = volume_id.rsplit("/", 1)[-1]
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip("._")
    # The hash tells apart what the shortening makes equal.
    return Path(volumes) / f"{kept[-40:]}-{zlib.crc32(volume_id.encode()):08x}"
