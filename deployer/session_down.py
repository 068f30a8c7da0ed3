"""One `down`: from the ledger, so that what was deployed is taken down whatever the spec says today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deployer import realm as realms
from deployer.cli import context
from deployer.deployment import Deployment, forget_stacks
from deployer.down import Down, Taken, deployed, without_spec
from deployer.engine_home import EngineHome
from deployer.errors import FedspanError
from deployer.ledger import NOTHING_THERE, Ledger
from deployer.live import screen
from deployer.session import opened, tell
from startup_kits.spec import load_spec

if TYPE_CHECKING:
    from startup_kits.workspace import Workspace


def take_down(names: list[str], *, abort_jobs: bool, discard_results: bool, forget_hosts: bool = False) -> Taken | None:
    """`fedspan down` of the lead."""
    workspace = context.workspace()
    ledger = Ledger(workspace.ledger_path)
    if not ledger.exists() or not deployed(ledger, names):
        nothing()
        return None
    if forget_dead_sandbox(workspace.state_dir, ledger):
        return None
    realm = realms.current()
    base = from_ledger(workspace, ledger, realm)
    results = workspace.root / "results"
    return down(base, workspace.kits_dir, results, names, abort_jobs, discard_results, forget_hosts=forget_hosts)


def nothing() -> None:
    """Nothing is deployed."""
    if context.options().json:
        context.emit({"event": "result", "deleted": 0, "left": 0})
    else:
        context.say("nothing is deployed, nothing is left")


def from_ledger(workspace: Workspace, ledger: Ledger, realm: realms.Realm) -> Deployment:
    """The deployment as the ledger remembers it; the spec is asked for the admins only, and may be broken."""
    leads: tuple[Path, ...] = ()
    federation = ledger.meta("federation")
    try:
        spec = load_spec(workspace.spec_path)
        leads = tuple(workspace.kits_dir / name for name, admin in spec.admins.items() if admin.role == "lead")
        federation = federation or spec.name
    except FedspanError as error:
        if federation is None:
            raise
        tell(f"federation.yml is not usable ({error.what}); the ledger says what is deployed")
    return Deployment(
        federation=federation,
        owner="",
        by="lead",
        state_dir=workspace.state_dir,
        members={},
        ssh_from="auto",
        admins={},
        leads=leads,
        digest="",
        realm=realm,
        ledger=ledger,
    )


def forget_dead_sandbox(state_dir: Path, ledger: Ledger) -> bool:
    """With `--sandbox`, when the sandbox of this ledger is gone: say so and forget, instead of starting another one."""
    bound = ledger.realm()
    if not context.options().sandbox or bound is None or bound[0] != "sandbox":
        return False
    sandbox = realms.found_sandbox()
    if sandbox is not None and sandbox.realm_id == bound[1]:
        return False
    names = ledger.forget_all()
    forget_stacks(state_dir, EngineHome(state_dir / "stacks", f"fedspan-{ledger.meta('federation')}"))
    if context.options().json:
        context.emit({"event": "result", "deleted": 0, "left": 0, "forgotten": names})
    else:
        context.say(f"the sandbox in which {', '.join(names)} lived is gone, and they with it: nothing is left")
    return True


def down(
    base: Deployment,
    kits_dir: Path,
    results: Path,
    names: list[str],
    abort_jobs: bool,
    discard_results: bool,
    note: str | None = None,
    forget_hosts: bool = False,
) -> Taken:
    """Jobs, question, destruction, check, report. `note` is told once everything is deleted."""
    rows = deployed(base.ledger, names)
    deployment = without_spec(base, rows, kits_dir)
    with opened(deployment, list(deployment.members.values()), "down") as session:
        work = Down(session.crew, rows, kits_dir, results, forget_hosts)
        whom = ", ".join(row.name for row in rows)
        if not context.options().json:
            for row in rows:
                place = " ".join(word for word in (row.target, row.region, row.size) if word)
                context.say(f"{row.name}: {place}, {row.phase}{f', {row.address}' if row.address else ''}")
        work.jobs(abort_jobs, discard_results, tell)
        context.confirm(f"Delete everything of {whom}?")
        if any(row.cloud for row in rows):
            base.realm.engine_root()  # where there is none it asks: not under the table, from a thread of each stack
        with screen([row.name for row in rows]) as live:
            session.show(live)
            taken = work.destroy()
    if note is not None:
        tell(note)
    conclude(base.ledger, taken, whom, "the kit stays" if base.by == "owner" else "kits, CA and ledger stay")
    return taken


def conclude(ledger: Ledger, taken: Taken, whom: str, stays: str) -> None:
    """The last lines of a `down` of `whom`, and what `stays`."""
    deleted, expected = sum(taken.deleted.values()), sum(taken.expected.values())
    if context.options().json:
        context.emit(
            {
                "event": "result",
                "deleted": deleted,
                "expected": expected,
                "left": 0,  # else it would have failed
                "asked": sorted(taken.asked),
                "results": [str(path) for path in taken.results],
            }
        )
        return
    asked = f" (asked {', '.join(sorted(set(taken.asked)))})" if taken.asked else ""
    context.say(f"down: {deleted} of {expected} resources deleted, 0 left{asked}")
    server = ledger.participant("server")
    if server is not None and server.cloud and server.phase not in NOTHING_THERE:
        context.say("the server still lets their addresses in\n  next: fedspan up server")
    if not deployed(ledger, []):
        context.say(f"nothing is deployed any more; {stays}")
