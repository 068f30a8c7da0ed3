"""`fedspan support-bundle`: one file for whoever helps, without secrets."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from deployer.cli import context


def support_bundle(
    out: Annotated[Path | None, typer.Option("--out", help="The file (default: fedspan-support-TIME.tar.gz).")] = None,
) -> None:
    """Collect versions, spec, status, events and logs into one file, without keys, passphrases and tokens."""
    import os

    from deployer.errors import UsageError
    from deployer.redact import Redactor
    from deployer.support import known_secrets, texts, write

    workspace = context.workspace()
    redact = Redactor(known_secrets(workspace, os.environ))  # before the realm takes the credentials out
    path = out or Path(f"fedspan-support-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.tar.gz")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", next_step=f"mkdir -p {path.parent}")
    count = write(path, texts(workspace, _status()), redact)
    if context.options().json:
        context.emit({"path": str(path), "files": count})
    else:
        context.say(f"{path}: {count} files, secrets taken out. Look through it before you hand it on: tar xzf {path}")


def _status() -> dict[str, Any] | None:
    """What `status` says; None where it says nothing: a bundle is made all the more when something is broken."""
    from deployer.cli.status import look
    from deployer.errors import FedspanError

    try:
        return look().document()
    except FedspanError as error:
        return {"error": str(error)}
