"""`fedspan site …`: which sites are there, what they have, and orders to them. With an admin's kit."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deployer.cli import context
from deployer.cli.jobs import KitOption, session
from deployer.errors import RefusedError

site_app = typer.Typer(
    help="Sites as the server sees them: list, resources, restart, shutdown.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[list[str], typer.Argument(help="Names of sites, or `server`.")]


@site_app.command("list")
def list_(kit: KitOption = None) -> None:
    """Every site that ever registered, and whether it is connected."""
    with session(kit) as connection:
        table = connection.sites()
    if context.options().json:
        context.emit(table)
        return
    context.say(sites_table(table) if table else "no site has registered yet\n  next: fedspan status")


def sites_table(table: dict[str, dict[str, Any]]) -> Any:
    """For the screen."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("site", "state", "last seen", "fedspan", "address"):
        shown.add_column(heading, no_wrap=True)
    for name, row in table.items():
        state = "connected" if row["registered"] else "lost"
        shown.add_row(name, state, str(row["last_seen"] or ""), str(row["version"]), str(row["address"]))
    return shown


@site_app.command()
def resources(kit: KitOption = None) -> None:
    """What each connected site has, what of it is free, and the jobs that run there."""
    with session(kit) as connection:
        table = connection.resources()
    if context.options().json:
        context.emit(table)
        return
    context.say(resources_table(table) if table else "no site is connected\n  next: fedspan site list")


def resources_table(table: dict[str, dict[str, Any]]) -> Any:
    """For the screen."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("site", "GPUs", "memory", "slots", "free", "jobs"):
        shown.add_column(heading, no_wrap=heading != "jobs")
    for name, row in table.items():
        free = row.get("free") or {}
        shown.add_row(
            name,
            _figure("gpus", row.get("gpus")),
            _figure("memory", row.get("memory")),
            _figure("slots", row.get("slots")),
            ", ".join(f"{key} {_figure(key, value)}" for key, value in free.items()),
            ", ".join(str(job) for job in row.get("jobs") or ()),
        )
    return shown


def _figure(key: str, value: Any) -> str:
    """A list by its length, memory in GiB, what was not told as nothing."""
    if value is None:
        return ""
    if isinstance(value, list):
        return str(len(value))
    if key == "memory" and isinstance(value, (int, float)) and value > 1 << 20:
        return f"{value / (1 << 30):.1f} GiB"
    return str(value)


@site_app.command()
def restart(names: Names, kit: KitOption = None) -> None:
    """Have sites start their process again; running jobs go on afterwards."""
    _order("restart", names, kit)


@site_app.command()
def shutdown(names: Names, kit: KitOption = None) -> None:
    """Have sites stop. Whoever runs them has to start them again. Asks first."""
    context.confirm(f"Shut down {', '.join(names)}? Their owners have to start them again.")
    _order("shutdown", names, kit)


def _order(action: str, names: list[str], kit: Any) -> None:
    with session(kit) as connection:
        told = connection.restart(*names) if action == "restart" else connection.shut_down(*names)
    if context.options().json:
        context.emit(told)
    else:
        for name, answer in told.items():
            context.say(f"{name}: {order_in_words(action, answer)}")
    refused = [name for name, answer in told.items() if not answer["accepted"]]
    if refused:
        raise RefusedError(
            f"{', '.join(refused)} did not take the order",
            why="; ".join(str(told[name]["why"]) for name in refused),
            next_step="fedspan site list",
        )


def order_in_words(action: str, answer: dict[str, Any]) -> str:
    """What somebody answered to an order."""
    if not answer["accepted"]:
        return f"refused: {answer['why']}"
    return "restarts" if action == "restart" else "shuts down"
