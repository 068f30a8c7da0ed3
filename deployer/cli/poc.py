"""`fedspan poc …`: a whole federation of real processes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deployer.cli import context

poc_app = typer.Typer(
    help="A whole federation of real processes on this machine: up, status, down.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Number = Annotated[int, typer.Option("-n", "--sites", help="How many sites.")]
Data = Annotated[list[str] | None, typer.Option(help="NAME=PATH of data for every site; {site} and {n} in it.")]
Folder = Annotated[Path, typer.Option("--dir", help="Where it lies; removed by `down`.")]
Only = Annotated[list[str] | None, typer.Argument(help="Only these (server, site-1, ...).")]
HERE = Path("poc")


def _poc(folder: Path) -> Any:
    from deployer.poc import Poc

    return Poc(folder.absolute())


@poc_app.command()
def up(number: Number = 2, data: Data = None, folder: Folder = HERE) -> None:
    """Make the kits, start a server and sites, and wait until all are registered."""
    poc = _poc(folder)
    poc.prepare(number, data or [])
    poc.start()
    _ready(poc, folder)


def _ready(poc: Any, folder: Path) -> None:
    if context.options().json:
        sites = poc.names[1:]
        context.emit({"folder": str(poc.root), "port": poc.port, "sites": sites, "admin_kit": str(poc.admin_kit)})
        return
    down = "fedspan poc down" if folder == HERE else f"fedspan poc down --dir {folder}"
    context.say(f"server on 127.0.0.1:{poc.port} and {len(poc.names) - 1} sites run; all are registered")
    context.say(f"  next: fedspan -f {folder} job submit JOB_FOLDER --wait")
    context.say(f"        fedspan -f {folder} admin")
    context.say(f"        {down}")


@poc_app.command()
def status(folder: Folder = HERE) -> None:
    """Who runs, and who is registered."""
    poc = _poc(folder)
    server = poc.status("server") or {}
    rows = {}
    for name in poc.names:
        found = poc.status(name)
        site = (server.get("sites") or {}).get(name) or {}
        rows[name] = {
            "running": found is not None,
            "pid": found["pid"] if found else None,
            "registered": bool(site.get("registered")) if name != "server" else None,
            "log": str(poc.log(name)),
        }
    if context.options().json:
        context.emit({"folder": str(poc.root), "port": poc.port, "participants": rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("participant", "state", "pid", "log"):
        table.add_column(heading, no_wrap=True)
    for name, row in rows.items():
        state = "stopped" if not row["running"] else "runs"
        if row["running"] and row["registered"] is not None:
            state = "registered" if row["registered"] else "not registered"
        table.add_row(name, state, str(row["pid"] or ""), str(row["log"]))
    context.say(table)


@poc_app.command()
def down(folder: Folder = HERE) -> None:
    """Stop everything and remove the folder: nothing is left behind."""
    poc = _poc(folder)
    if not poc.exists:
        context.emit({"down": []}) if context.options().json else context.say(f"no federation in {poc.root}")
        return
    stopped = poc.down()
    if context.options().json:
        context.emit({"down": stopped})
    else:
        context.say(f"{len(stopped)} processes stopped, {poc.root} removed; nothing is left")


@poc_app.command()
def prepare(number: Number = 2, data: Data = None, folder: Folder = HERE) -> None:
    """Only make the kits (the first half of `up`)."""
    poc = _poc(folder)
    poc.prepare(number, data or [])
    if context.options().json:
        context.emit({"folder": str(poc.root), "participants": poc.names})
    else:
        context.say(f"kits for {', '.join(poc.names)} and an admin in {poc.root}/kits\n  next: fedspan poc start")


@poc_app.command()
def start(only: Only = None, folder: Folder = HERE) -> None:
    """Start what does not run (the second half of `up`)."""
    poc = _poc(folder)
    poc.start(_known(poc, only))
    _ready(poc, folder)


@poc_app.command()
def stop(only: Only = None, folder: Folder = HERE) -> None:
    """Stop processes; kits and state stay."""
    poc = _poc(folder)
    stopped = poc.stop(_known(poc, only))
    if context.options().json:
        context.emit({"stopped": stopped})
    else:
        context.say(f"stopped: {', '.join(stopped) or 'nothing ran'}\n  next: fedspan poc start, or fedspan poc down")


def _known(poc: Any, only: list[str] | None) -> list[str]:
    from deployer.errors import UsageError

    for name in only or ():
        if name not in poc.names:
            raise UsageError(
                f"there is no {name}", why=f"there are: {', '.join(poc.names)}", next_step="fedspan poc status"
            )
    return list(only or ())


poc_app.command("clean", help="The same as `down`.")(down)
