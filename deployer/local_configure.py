"""What a kit's owner says of this machine: where the server is, where the data lies; kept in the kit's `local/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from deployer.endpoints import checked_endpoint
from deployer.errors import UsageError
from startup_kits.kit import ENDPOINT, Kit
from startup_kits.workspace import write_private

_DATA_HEADER = "# Names that jobs ask for, and where the data lies on this machine. The data itself never moves.\n"


def configure(kit: Kit, server: str | None, proxy: str | None, data: Sequence[str]) -> None:
    """Write what the owner said into the kit's `local/`. Raises UsageError: no server's address, no such data."""
    if server is not None or proxy is not None:
        now = kit.endpoint()
        kit.set_endpoint(checked_endpoint(server) if server else now.server, proxy)
    if data:
        if kit.role != "site":
            again = f"{kit.path}/start.sh without --data"
            raise UsageError("--data is for sites", participant=kit.name, next_step=again)
        set_data(kit, data)
    if kit.role == "site" and kit.endpoint().server is None:
        raise UsageError(
            "the server's address is not known",
            participant=kit.name,
            why=f"{kit.path / ENDPOINT} names none",
            next_step=f"{kit.path}/start.sh --server HOST:PORT, as the federation's lead tells you",
        )


def set_data(kit: Kit, data: Sequence[str]) -> None:
    """Writes `NAME=PATH` pairs into the kit's `local/data.yml`; other names stay.

    Raises:
        UsageError: no pair, or nothing lies there.
    """
    known = kit.data()
    for pair in data:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--data {pair} is not NAME=PATH", next_step="--data digits=/srv/data/digits")
        if not Path(path).exists():
            raise UsageError(
                f"no data lies at {path}",
                participant=kit.name,
                why=f"--data {pair}",
                next_step=f"{kit.path}/start.sh --data {name}=PATH with a path that is there",
            )
        known[name] = str(Path(path).absolute())
    text = _DATA_HEADER + yaml.safe_dump({"data": known}, sort_keys=False, allow_unicode=True)
    write_private(kit.path / "local/data.yml", text.encode(), 0o644)
