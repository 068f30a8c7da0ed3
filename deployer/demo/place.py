"""Where the demo lies: its folder, the example it runs, and the hospital that starts its own kit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import FedspanError, RefusedError

#: In a folder that the demo made, and may therefore remove.
_MARK = ".fedspan-demo"
FEDERATION = "demo"


def example_folder() -> Path:
    """`examples/digits`: beside the packages in a checkout, inside this one in an installed wheel."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "examples" / "digits", here.parent / "example"):
        if (folder / "job.yml").is_file():
            return folder
    raise FedspanError("the demo's example is not installed", next_step="run it from a checkout: make demo")


@dataclass(frozen=True)
class Place:
    """The folders of one demo.

    `root/digits` is the lead's workspace; `root/hospital-c` stands for the site on premises: its own HOME, its own
    data, its own copy of the kit, and nothing of the lead's.
    """

    root: Path

    @property
    def workspace(self) -> Path:
        return self.root / "digits"

    @property
    def spec(self) -> Path:
        return self.workspace / "federation.yml"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def hospital(self) -> Path:
        return self.root / "hospital-c"

    def make(self) -> None:
        """A new, empty demo in place of an older one.

        Raises:
            RefusedError: the folder was not made by a demo.
        """
        if self.root.exists() and any(self.root.iterdir()):
            if not (self.root / _MARK).exists():
                raise RefusedError(
                    f"{self.root} is not empty and not a demo's folder", next_step="fedspan demo --folder ANOTHER"
                )
            shutil.rmtree(self.root)
        for folder in (self.workspace, self.results, self.data, self.hospital):
            folder.mkdir(parents=True)
        (self.root / _MARK).touch()
        text = (example_folder() / "federation.yml").read_text()
        # A name of its own, so that it stands beside whatever else lives in the sandbox.
        self.spec.write_text(re.sub(r"^name: digits", f"name: {FEDERATION}  ", text, flags=re.MULTILINE))

    def is_there(self) -> bool:
        """Whether an earlier demo left its ledger here."""
        return (self.root / _MARK).exists() and (self.workspace / ".fedspan" / "ledger.db").exists()


class Hospital:
    """The owner of a kit on premises: runs the kit's own scripts, as a user of their own would."""

    def __init__(self, place: Place, name: str) -> None:
        self.name = name
        self.home = place.hospital
        self.kit = place.hospital / name
        self.data = place.hospital / "data" / "digits"

    def receive(self, kit: Path) -> None:
        """The kit arrives, as a copy."""
        shutil.copytree(kit, self.kit)
        self.data.mkdir(parents=True)

    def start(self, ca_fingerprint: str, server: str, proxy: str) -> str:
        """`start.sh`; what it prints.

        Raises:
            FedspanError: it did not register; with what it said.
        """
        argv = [str(self.kit / "start.sh"), "--server", server, "--ca-fingerprint", ca_fingerprint]
        return self._run([*argv, "--proxy", proxy, "--data", f"digits={self.data}"])

    def stop(self) -> str:
        """`stop.sh`; what it prints."""
        return self._run([str(self.kit / "stop.sh")]) if self.kit.exists() else ""

    def _run(self, argv: list[str]) -> str:
        fedspan = Path(sys.executable).with_name("fedspan")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "FEDSPAN": str(fedspan),
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise FedspanError(
                f"{Path(argv[0]).name} failed",
                participant=self.name,
                why=said.removeprefix("error: ") or f"exit code {done.returncode}",
                next_step="make demo once more; with --keep what it made stays to be looked at",
            )
        return done.stdout
