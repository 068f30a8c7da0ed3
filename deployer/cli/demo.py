"""`fedspan demo`: the whole way in the sandbox."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from deployer.cli import context


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up at the end.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo keeps its files.")] = Path("demo"),
) -> None:
    """Both clouds emulated: deploy a federation, train on data that stays where it is, compare, take all down."""
    from deployer.demo.place import Place
    from deployer.demo.run import Demo

    place = Place(folder.resolve())
    context.configure(dataclasses.replace(context.options(), sandbox=True, yes=True, json=False, file=place.spec))
    Demo(place, keep=keep).run()
