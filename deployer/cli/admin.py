"""`fedspan admin`: an interactive console for a federation; it also takes commands from a pipe."""

from __future__ import annotations

from deployer.cli.jobs import KitOption, session


def admin(kit: KitOption = None) -> None:
    """An interactive console: `help` lists its commands. From a pipe it ends at the first error, with its exit code."""
    from deployer.console import Console

    with session(kit) as connection:
        Console(connection).run()
