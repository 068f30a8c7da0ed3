"""A kit's `local/` on its machine: it belongs to the site. An `up` writes the server's address, and leaves the rest.

A file there that is still as an earlier `up` pushed it follows the kit here (data paths of a changed federation.yml);
one that its owner edited stays, and differs from the kit's here from then on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from deployer.service import KIT, OPT
from deployer.ssh.machine import Machine
from startup_kits.kit import ENDPOINT, Kit

RECORD = f"{OPT}/local.json"
"""On the machine: the hash of each file of `local/` as it was last pushed."""

ALWAYS = ("endpoint.yml", "revoked.json")
"""Not the owner's to edit there: where the server is, and the CA's own list of who is no longer a participant."""

_MAX_FILE = 4 * 1024 * 1024


@dataclass(frozen=True)
class LocalFiles:
    """What a push did there.

    Attributes:
        written: names that are new or changed.
        kept: names that differ from the kit's here, because their owner edited them there.
        pushed: changes with what was pushed; the runtime is started anew then.
        sent_bytes: bytes that went over the wire.
    """

    written: Sequence[str]
    kept: Sequence[str]
    pushed: str
    sent_bytes: int

    @property
    def note(self) -> str:
        """For the operator; empty where nothing differs."""
        if not self.kept:
            return ""
        names = ", ".join(f"local/{name}" for name in self.kept)
        return f"edited on the machine, kept, and other than in the kit here: {names}"


def settle_local(machine: Machine, kit: Kit, endpoint: str, owner: str) -> LocalFiles:
    """Brings `local/` on the machine up to date, as far as it is ours to write.

    Args:
        endpoint: the text of endpoint.yml for that machine.
        owner: user there who gets the files, empty for the login.

    Raises:
        MachineError, UnreachableError: it could not be written.
    """
    files = {"endpoint.yml": endpoint}
    for path in sorted((kit.path / "local").glob("*")):
        if path.is_file() and not path.is_symlink() and path.name not in files and path.stat().st_size < _MAX_FILE:
            files[path.name] = path.read_text(encoding="utf-8")
    request = {
        "folder": f"{machine.path(KIT)}/{ENDPOINT.partition('/')[0]}",
        "record": machine.path(RECORD),
        "files": files,
        "always": ALWAYS,
        "owner": owner,
    }
    script = resources.files("deployer.remote").joinpath("local_files.py").read_text(encoding="utf-8")
    done = machine.run_privileged(
        [machine.facts().python, "-I", "-c", script], input=json.dumps(request).encode(), timeout_s=60
    )
    answer = json.loads(done.stdout)
    written = answer["written"]
    sent = sum(len(files[name].encode()) for name in written)
    return LocalFiles(tuple(written), tuple(answer["kept"]), str(answer["pushed"]), sent)
