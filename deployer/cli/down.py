"""`fedspan down`: fetch finished results, take everything down, check with the clouds that nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployer.errors import UsageError


def down(
    participants: Annotated[list[str] | None, typer.Argument(help="Whom to take down (default: everybody).")] = None,
    abort_jobs: Annotated[bool, typer.Option("--abort-jobs", help="Abort jobs that are running.")] = False,
    discard_results: Annotated[bool, typer.Option("--discard-results", help="Don't fetch finished results.")] = False,
    forget_hosts: Annotated[
        bool, typer.Option("--forget-hosts", help="Give up hosts that can't be reached: what is on them stays.")
    ] = False,
    kit: Annotated[Path | None, typer.Option("--kit", help="Take down this kit's machine, as its owner.")] = None,
) -> None:
    """Fetch finished results, take everything down, check that nothing is left. Kits, CA and ledger stay."""
    if kit is not None:
        if participants:
            raise UsageError(
                "--kit takes one kit down", why="it takes no participants", next_step=f"fedspan down --kit {kit}"
            )
        from deployer.owner import down as take_kit_down

        take_kit_down(kit)
        return
    from deployer.session_down import take_down

    words = participants or []
    take_down(words, abort_jobs=abort_jobs, discard_results=discard_results, forget_hosts=forget_hosts)
