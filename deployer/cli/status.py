"""`fedspan status`: who is deployed, running and registered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context
from deployer.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deployer.status import Status


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every two seconds, until Ctrl-C.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", "-r", help="Ask the clouds too: machines, and what was changed behind us.")
    ] = False,
) -> None:
    """Who is deployed, running and registered. Without --refresh no cloud is asked: no credentials are needed."""
    if not watch:
        show(refreshed(look()) if refresh else look())
        return
    if refresh:
        raise UsageError(
            "--watch and --refresh don't go together",
            why="clouds slow down whoever asks every two seconds",
            next_step="fedspan status --refresh, now and then",
        )
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


def refreshed(found: Status) -> Status:
    """The status with what the clouds say. Raises CredentialsError and the like when none of them can be asked."""
    from deployer import realm as realms
    from deployer.idle import note_seen
    from deployer.ledger import Ledger
    from deployer.look import Look
    from deployer.session_down import from_ledger
    from deployer.status import with_clouds

    workspace = context.workspace()
    ledger = Ledger(workspace.ledger_path)
    if not ledger.exists():
        return found
    deployment = from_ledger(workspace, ledger, realms.current())
    views = Look(deployment, workspace.kits_dir).take()
    return with_clouds(found, views, note_seen(ledger, views))


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

    from deployer.expiry import in_words
    from deployer.idle import in_words as idle_in_words
    from deployer.status import ago

    asked = any(line.machine for line in found.lines)
    columns = {
        "participant": "name",
        "target": "target",
        "place": "place",
        "size": "size",
        "address": "address",
        **({"machine": "machine"} if asked else {}),
        "phase": "phase",
        "runtime": "runtime",
        "fedspan": "version",
        "GPUs": "gpus",
        "deployed by": "deployed_by",
    }
    columns = {heading: name for heading, name in columns.items() if any(getattr(line, name) for line in found.lines)}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (*columns, "since"):
        table.add_column(heading, no_wrap=True)
    table.add_column("$/h", justify="right")
    notes = []
    for line in found.lines:
        since = ago(time.time() - line.since) if line.since else ""
        price = f"{line.usd_hour:.3f}" if line.usd_hour is not None else ""
        table.add_row(*(getattr(line, name) for name in columns.values()), since, price)
        if line.detail:
            notes.append(f"{line.name}: {line.detail}")
        notes += [f"{line.name}: drift: {one.text}" for one in line.drift]
        if line.expires and line.since:
            armed = line.bill_ends is not None
            known = {"armed": armed, "told": line.end_told}
            notes.append(f"{line.name}: {in_words(line.expires, time.time(), line.target, line.machine, **known)}")
        if idles := idle_in_words(line.idle_stop, line.phase, line.runtime, by_itself=line.idled):
            notes.append(f"{line.name}: {idles}")
        if line.jobs:
            notes.append(f"{line.name}: runs {', '.join(line.jobs)}")
    if any(line.drift for line in found.lines):
        notes.append(
            "drift is what was changed behind fedspan\n  next: fedspan up --refresh shows what puts it right, and asks"
        )
    elif asked and all(line.machine != "unknown" for line in found.lines):
        notes.append("the clouds hold what was made: no drift")
    if found.trouble:
        notes.append(f"server: {found.trouble}")
    jobs = (found.server or {}).get("jobs") or []
    if jobs:
        notes.append("jobs: " + ", ".join(f"{job.get('id')} {str(job.get('state', '')).lower()}" for job in jobs[-5:]))
    off = [line.name for line in found.lines if line.phase == "stopped"]
    if off:
        notes.append(f"off, but disks and addresses go on costing: {', '.join(off)}")
    spent = [line.usd for line in found.lines if line.usd is not None]
    if spent:
        notes.append(f"machines so far, at list price: ${sum(spent):.2f}")
    return Group(table, *notes)
