"""The `fedspan` command. Importing this package imports nothing else: commands are loaded when they are called."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `fedspan` command."""
    from deployer.cli.app import run

    raise SystemExit(run())
