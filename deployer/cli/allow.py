"""`fedspan allow SITE CIDR`: let an address reach the server's port, or take that back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployer.cli import context


def allow(
    site: Annotated[str | None, typer.Argument(help="For which site.")] = None,
    cidr: Annotated[str | None, typer.Argument(help="The network, such as 52.1.2.3/32.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it back (all of the site's without CIDR).")] = False,
    kit: Annotated[Path | None, typer.Option("--kit", help="The server's kit, if its owner deployed it.")] = None,
) -> None:
    """Let an address reach the server's port, or take that back; without arguments, list who may."""
    from deployer.session_allow import change, listing

    if site is None:
        listing(kit)
        return
    result = change(site, cidr, remove=remove, kit=kit)
    if context.options().json:
        context.emit(result)
