"""`fedspan extend`: a site's machine ends later, or never."""

from __future__ import annotations

from typing import Annotated

import typer

from deployer.cli import context


def extend(
    participant: Annotated[str, typer.Argument(help="Which site.")],
    by: Annotated[str, typer.Argument(help="By how much: 90m, 8h, 3d; or never, which takes the end away.")],
) -> None:
    """Move the end that `up --ttl` gave a site's machine."""
    from deployer.expiry_units import stamp
    from deployer.session_extend import extend as move

    end = move(participant, by)
    if context.options().json:
        context.emit({"event": "result", "participant": participant, "expires": stamp(end) if end else None})
    else:
        context.say(f"{participant}: " + (f"ends itself at {stamp(end)}" if end else "does not end by itself any more"))
