"""`fedspan reap`: find and delete what the clouds hold of this federation and no stack knows."""

from __future__ import annotations

from typing import Annotated

import typer


def reap(
    region: Annotated[list[str] | None, typer.Option("--region", help="Look into this region of AWS too.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Delete what this other deployment left, too (its id).")
    ] = None,
    lost_stacks: Annotated[
        bool,
        typer.Option(
            "--lost-stacks", help="The stacks can't be read any more (passphrase, backend): delete what they made too."
        ),
    ] = False,
) -> None:
    """Find what no stack knows: by tag, by name, from the ledger. Tells its cost so far, asks, deletes."""
    from deployer.session_reap import reap as work

    work(region or [], deployment, lost_stacks)
