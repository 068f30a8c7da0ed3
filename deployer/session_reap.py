"""One `reap` as its user sees it: a table with the costs so far, a question, the deletion, what is left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from deployer import realm as realms
from deployer.backend import name_of, note_backend
from deployer.cli import context
from deployer.deployment import lead
from deployer.errors import CloudError
from deployer.ledger import Ledger
from deployer.live import screen
from deployer.reap import Orphan, Reap
from deployer.session import opened, tell
from deployer.session_down import from_ledger
from startup_kits.spec import load_spec

if TYPE_CHECKING:
    from rich.table import Table

    from deployer.deployment import Deployment
    from startup_kits.workspace import Workspace


def reap(regions: Iterable[str], deployment_id: str | None, stacks_lost: bool = False) -> None:
    """`fedspan reap` of the lead. `stacks_lost`: what the stacks hold is deleted too, then they are thrown away."""
    workspace = context.workspace()
    deployment = _deployment(workspace)
    members = list(deployment.members.values())
    with opened(deployment, members, "reap", stacks_lost=stacks_lost) as session:
        work = Reap(session.crew, workspace.kits_dir, tuple(regions), deployment_id, stacks_lost)
        orphans = work.find()
        _tell(work, orphans)
        doomed = work.chosen(orphans)
        left: list[Orphan] = []
        if doomed:
            context.confirm(f"Delete {len(doomed)} resources{', whatever runs there' if stacks_lost else ''}?")
            with screen([]) as live:  # only now: it would be drawn over the question
                session.show(live)
                left = work.delete(doomed)
        if stacks_lost and not left:
            _give_up(work)
    if context.options().json:
        context.emit({"event": "result", "deleted": len(doomed) - len(left), "left": len(left)})
    elif doomed:
        context.say(f"reap: {len(doomed) - len(left)} of {len(doomed)} resources deleted, {len(left)} left")
    if left:
        raise CloudError(
            f"{len(left)} resources are left",
            why=", ".join(orphan.thing.title for orphan in left),
            next_step="fedspan reap tries again",
        )


def _give_up(work: Reap) -> None:
    """Throw away the stacks that could not be read, now that nothing of them is left.

    Raises:
        CloudError: not everybody could be asked.
    """
    home = work.deployment.home
    if work.unasked or not work.asked:
        silent = ", ".join(sorted(set(work.unasked))) or "no account that spec or ledger know"
        raise CloudError(
            "the lost stacks are kept",
            why=f"{silent} gave no answer, so something may be left there",
            next_step="fedspan reap --lost-stacks, once they can be asked",
        )
    home.forget()
    note_backend(work.crew)
    if not home.is_local:
        tell(f"delete .pulumi/stacks/{home.project} in {name_of(home)} too: no passphrase opens what is there")
    tell("the lost stacks are forgotten\n  next: fedspan up makes everything anew; fedspan down, if nothing is wanted")


def _deployment(workspace: Workspace) -> Deployment:
    """The spec's, where it is usable: its accounts and regions count too; else what the ledger remembers."""
    realm, ledger = realms.current(), Ledger(workspace.ledger_path)
    if workspace.spec_path.is_file():
        spec = load_spec(workspace.spec_path)
        workspace.ensure()
        return lead(workspace, spec, realm, complete=False)
    return from_ledger(workspace, ledger, realm)


def _tell(work: Reap, orphans: list[Orphan]) -> None:
    if context.options().json:
        context.emit(
            {
                "event": "orphans",
                "orphans": [orphan.document() for orphan in orphans],
                "asked": work.asked,
                "notes": work.notes,
                "usd": total(orphans),
            }
        )
        return
    for note in work.notes:
        tell(f"note: {note}")
    asked = ", ".join(sorted(set(work.asked)))
    if not orphans:
        context.say(f"nothing that no stack knows of (asked {asked})")
        return
    context.say(table(orphans))
    context.say(f"{len(orphans)} resources that no stack knows of (asked {asked}); {cost_line(orphans)}")
    for other in sorted({o.whose.deployment for o in orphans if not o.ours} - {work.deployment_id}):
        context.say(f"of another deployment, {other}: left alone; if it is yours: fedspan reap --deployment {other}")


def total(orphans: Iterable[Orphan]) -> float:
    """What they have cost so far, as far as it is known; USD."""
    return sum(orphan.usd or 0.0 for orphan in orphans)


def cost_line(orphans: list[Orphan]) -> str:
    """`$1.20 so far, $0.104 an hour from now on`, and for how many the price is not known."""
    hourly = sum(orphan.usd_hour or 0.0 for orphan in orphans)
    unknown = sum(1 for orphan in orphans if orphan.usd is None)
    words = f"about ${total(orphans):.2f} so far, ${hourly:.3f} an hour (list prices)"
    return f"{words}; not known for {unknown} of them" if unknown else words


def table(orphans: list[Orphan]) -> Table:
    """One row for each."""
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("participant", "what", "where", "made"):
        rows.add_column(heading, no_wrap=True)
    for heading in ("$/h", "$ so far"):
        rows.add_column(heading, justify="right")
    for orphan in orphans:
        thing = orphan.thing
        made = f"{thing.created:%Y-%m-%d %H:%M}" if thing.created else ""
        whose = orphan.whose.participant + ("" if orphan.ours else f" ({orphan.whose.deployment})")
        rows.add_row(
            whose, thing.title, f"{thing.cloud} {thing.region}", made, _usd(orphan.usd_hour, 3), _usd(orphan.usd, 2)
        )
    return rows


def _usd(value: float | None, digits: int) -> str:
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" if value else ""
