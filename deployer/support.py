"""The support bundle: what somebody who helps needs to see, and no secret.

What goes in is named here, file by file: versions, the spec, what is deployed, who did what, the logs of the last runs,
the runtimes' logs, the names of the kits' files. Keys, passphrases, stacks' states and data stay where they are, and
every text goes through the redactor, which knows this deployment's secrets by value.
"""

from __future__ import annotations

import io
import json
import platform
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from deployer.errors import FedspanError
from deployer.ledger import NOTHING_THERE, Ledger, Row
from deployer.reach import reach_of
from deployer.realm import is_cloud_variable
from deployer.redact import Redactor
from deployer.settings import setting
from startup_kits.workspace import Workspace, write_private

RUNS = 5
"""Runs of commands whose logs go in, the newest."""

LOG_LINES = 500
"""Lines of each runtime's log."""

_LONGEST = 2_000_000
"""Characters of one log: the end of it."""

_TOOLS = ("fedspan", "pulumi", "pulumi-aws", "pulumi-azure-native", "paramiko", "grpcio", "boto3", "cryptography")


def known_secrets(workspace: Workspace, environ: Mapping[str, str]) -> Iterable[str]:
    """Every secret of a deployment that lies here, by value: whatever only its owner may read, and credentials."""
    folders = (workspace.ca_dir, workspace.ssh_dir)
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    files += [workspace.passphrase_path, workspace.stacks_dir / "passphrase"]
    files += [path for path in workspace.kits_dir.glob("*/startup/*") if path.suffix == ".key"]
    public = (".pub", ".crt", "known_hosts", ".rotated")
    for path in files:
        if path.is_file() and not path.name.endswith(public):
            yield path.read_text(errors="replace")
    words = ("SECRET", "TOKEN", "PASS", "KEY")
    for name, value in environ.items():
        if any(word in name.upper() for word in words) and (is_cloud_variable(name) or name.startswith("FEDSPAN_")):
            yield value


def versions() -> dict[str, Any]:
    """What runs here."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "system": platform.platform()}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def texts(workspace: Workspace, status: Mapping[str, Any] | None) -> dict[str, str]:
    """The bundle's files by name, not redacted yet. Asks the machines for their logs; what does not answer is said."""
    ledger = Ledger(workspace.ledger_path)
    found = {"versions.json": _json(versions())}
    if workspace.spec_path.is_file():
        found[workspace.spec_path.name] = workspace.spec_path.read_text(errors="replace")
    if status is not None:
        found["status.json"] = _json(status)
    rows = ledger.participants()
    found["participants.json"] = _json([row.__dict__ for row in rows])
    found["events.jsonl"] = "".join(json.dumps(event.__dict__) + "\n" for event in ledger.events())
    if workspace.kits_dir.is_dir():
        names = sorted(p.relative_to(workspace.kits_dir) for p in workspace.kits_dir.rglob("*") if p.is_file())
        found["kits.txt"] = "".join(f"{name}\n" for name in names)
    logs = workspace.state_dir / "logs"
    runs = sorted(path for path in logs.iterdir() if path.is_dir()) if logs.is_dir() else []
    for run in runs[-RUNS:]:
        for path in sorted(run.glob("*.log")):
            found[f"logs/{run.name}/{path.name}"] = path.read_text(errors="replace")[-_LONGEST:]
    there = [row for row in rows if row.target != "kit" and row.address and row.phase not in NOTHING_THERE]
    with ThreadPoolExecutor(max(1, len(there))) as pool:
        for row, text in zip(there, pool.map(lambda row: runtime_log(row, workspace.ssh_dir), there), strict=True):
            found[f"machines/{row.name}.log"] = text[-_LONGEST:]
    return found


def runtime_log(row: Row, ssh_dir: Path) -> str:
    """The end of a runtime's log, or why it can't be had."""
    from deployer.bootstrap import runtime_log as read

    try:
        with reach_of(row, ssh_dir).connect(setting("STATUS_DEADLINE")) as machine:
            return read(machine, tail=LOG_LINES)
    except FedspanError as error:
        return f"not fetched: {error}\n"


def write(path: Path, found: Mapping[str, str], redact: Redactor) -> int:
    """Write the bundle (tar.gz, 0600); returns how many files are in it."""
    buffer = io.BytesIO()
    stem = path.name.partition(".")[0]
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in found.items():
            data = redact(text).encode()
            entry = tarfile.TarInfo(f"{stem}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    write_private(path, buffer.getvalue())
    return len(found)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
