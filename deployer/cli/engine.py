"""`fedspan engine`: the `pulumi` command that makes resources: which it is, how to install it, also offline."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from deployer.cli import context

engine_app = typer.Typer(
    help="The `pulumi` command behind real clouds: show which, install the pinned one, print the steps by hand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@engine_app.command()
def install(
    sha256: Annotated[str | None, typer.Option(help="The archive's SHA-256, instead of the release's list.")] = None,
) -> None:
    """Install the pinned `pulumi` for fedspan alone, checked by SHA-256. `--pulumi ARCHIVE` takes it from a file."""
    from deployer.engine_find import ENGINE_VERSION, command_in, own_engine_root
    from deployer.engine_install import install as install_engine
    from deployer.engine_install import installed, sources

    archive = context.options().pulumi
    origin = str(archive) if archive is not None else sources()[0]
    context.confirm(f"Install pulumi {ENGINE_VERSION} from {origin} into {own_engine_root()}?")
    root = install_engine(archive, sha256, say if not context.options().json else lambda text: None)
    if context.options().json:
        context.emit({"command": str(command_in(root)), **(installed() or {})})
        return
    context.say(f"installed: {command_in(root)}")


def say(text: str) -> None:
    """A line of progress."""
    context.say(f"  {text}")


@engine_app.command()
def show() -> None:
    """Which command will be used, its version, and where it comes from."""
    from deployer.preflight.engine import engine_facts

    facts = engine_facts(dict(os.environ))
    if context.options().json:
        context.emit(facts)
        return
    for name, value in facts.items():
        context.say(f"{name}: {value if value is not None else 'none'}")


@engine_app.command()
def steps() -> None:
    """Print what to type to install it by hand, on a machine without internet access too."""
    from deployer.engine_install import steps as by_hand

    if context.options().json:
        context.emit({"steps": by_hand()})
        return
    for line in by_hand():
        context.say(line)
