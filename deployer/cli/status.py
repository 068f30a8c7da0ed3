"""`fedspan status`: who is deployed, running and registered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deployer.status import Status


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Who is deployed, running and registered."""
    if not watch:
        show(look())
        return
    from deployer.settings import setting

    try:
        if context.options().json:
            while True:
                show(look())
                time.sleep(setting("WATCH_INTERVAL"))
        from rich.live import Live

        with Live(render(look()), console=context.console(), auto_refresh=False) as live:
            while True:
                time.sleep(setting("WATCH_INTERVAL"))
                live.update(render(look()), refresh=True)
    except KeyboardInterrupt:
        return


def look() -> Status:
    """The status now."""
    from deployer.errors import FedspanError
    from deployer.ledger import Ledger
    from deployer.status import collect
    from startup_kits.spec import load_spec

    workspace = context.workspace()
    ledger = Ledger(workspace.ledger_path)
    expected: list[tuple[str, str, str]] = []
    federation = ledger.meta("federation") or ""
    try:
        spec = load_spec(workspace.spec_path)
        federation = federation or spec.name
        expected = [(name, part.role, part.target) for name, part in spec.participants().items()]
    except FedspanError:
        if not ledger.exists():
            raise
    check_realm_of(ledger)
    return collect(ledger, workspace.ssh_dir, federation, expected)


def check_realm_of(ledger: Any) -> None:
    """Refuse to show a real deployment as the sandbox's, or the other way round; say when a sandbox is gone.

    Raises:
        RealmError: the deployment lives elsewhere.
    """
    from deployer.errors import RealmError
    from deployer.ledger import NOTHING_THERE

    bound = ledger.realm()
    there = [row.name for row in ledger.participants() if row.phase not in NOTHING_THERE]
    if bound is None or not there:
        return
    sandbox = context.options().sandbox
    if (bound[0] == "sandbox") != sandbox:
        raise RealmError(
            f"this federation is deployed in {'the sandbox' if bound[0] == 'sandbox' else 'real clouds'}",
            why="real and emulated clouds are never mixed",
            next_step="fedspan --sandbox status" if bound[0] == "sandbox" else "fedspan status, without --sandbox",
        )
    if sandbox:
        from deployer.realm import found_sandbox

        running = found_sandbox()
        if running is None or running.realm_id != bound[1]:
            raise RealmError(
                "the sandbox of this deployment is gone",
                why=f"{', '.join(there)} lived in it and are gone with it",
                next_step="fedspan --sandbox up deploys anew, fedspan --sandbox down forgets them",
            )


def show(found: Status) -> None:
    """Print it."""
    if context.options().json:
        context.emit(found.document())
    else:
        context.say(render(found))


def render(found: Status) -> RenderableType:
    """A table, and a line on jobs and money."""
    from rich.console import Group
    from rich.table import Table

    from deployer.status import ago

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("participant", "target", "place", "size", "address", "phase", "runtime", "deployed by", "since"):
        table.add_column(heading, no_wrap=True)
    table.add_column("$/h", justify="right")
    notes = []
    for line in found.lines:
        since = ago(time.time() - line.since) if line.since else ""
        price = f"{line.usd_hour:.3f}" if line.usd_hour is not None else ""
        cells = (line.name, line.target, line.place, line.size, line.address, line.phase, line.runtime)
        table.add_row(*cells, line.deployed_by, since, price)
        if line.detail:
            notes.append(f"{line.name}: {line.detail}")
    if found.trouble:
        notes.append(f"server: {found.trouble}")
    jobs = (found.server or {}).get("jobs") or []
    if jobs:
        notes.append("jobs: " + ", ".join(f"{job.get('id')} {str(job.get('state', '')).lower()}" for job in jobs[-5:]))
    spent = [line.usd for line in found.lines if line.usd is not None]
    if spent:
        notes.append(f"machines so far, at list price: ${sum(spent):.2f}")
    return Group(table, *notes)
