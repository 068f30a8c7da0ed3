"""One `allow`: note a permission in the ledger, and bring the server's rules up to it where the server is deployed."""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from deployer import realm as realms
from deployer.cli import context
from deployer.deployment import Deployment, lead
from deployer.engine import only_rules
from deployer.errors import UsageError
from deployer.ingress import check_cidr
from deployer.ledger import NOTHING_THERE, Ledger
from deployer.live import screen
from deployer.session import Session, opened
from startup_kits.spec import load_spec


def ledger_of(kit: Path | None) -> Ledger:
    """The lead's ledger, or that of a server's kit that its owner deployed."""
    if kit is None:
        return Ledger(context.workspace().ledger_path)
    from deployer.owner_choice import state_of

    return Ledger(state_of(kit) / "ledger.db")


def listing(kit: Path | None) -> None:
    """Who was let in."""
    allowed = ledger_of(kit).allowed()
    if context.options().json:
        context.emit(allowed)
        return
    for site, cidrs in allowed.items():
        context.say(f"{site}: {', '.join(cidrs)}")
    if not allowed:
        context.say("nobody was let in beyond the spec\n  next: fedspan allow SITE CIDR")


def change(site: str, cidr: str | None, *, remove: bool, kit: Path | None) -> dict[str, Any]:
    """Note the permission (or take it back), then bring the rules up to it.

    Raises:
        UsageError: no such site, or no network.
        RefusedError: the answer was no. Or the server has other changes waiting: the permission is noted all the same.
    """
    if cidr is None and not remove:
        raise UsageError("which network?", next_step=f"fedspan allow {site} 52.1.2.3/32")
    network = check_cidr(cidr) if cidr else None
    deployment = _deployment(kit)
    if kit is None and (site not in deployment.members or site == "server"):
        sites = [name for name in deployment.members if name != "server"]
        raise UsageError(
            "no such site",
            participant=site,
            why=f"{deployment.federation} has {', '.join(sites)}",
            next_step=f"fedspan allow {nearest(site, sites)} {cidr or '--remove'}",
        )
    if network and not remove:
        ask_if_wide(network)
    server = deployment.server
    row = deployment.ledger.participant("server")
    ours = server is not None and server.cloud is not None and row is not None and row.phase not in NOTHING_THERE
    done = [network] if network else []
    if not ours or server is None:
        done = note(deployment.ledger, site, network, remove)
        tell_noted(site, done, remove, "the server is not deployed by us: its owner opens the port")
        return {"site": site, "cidrs": done, "rules": 0}
    with opened(deployment, [server], "allow") as session:
        done = note(deployment.ledger, site, network, remove)
        changed = bring_up(session)
    rules = f"{changed} rule{'' if changed == 1 else 's'} changed" if changed else "the rules are so already"
    tell_noted(site, done, remove, rules)
    return {"site": site, "cidrs": done, "rules": changed}


def nearest(name: str, names: list[str]) -> str:
    """The name that was probably meant. Pure."""
    return next(iter(get_close_matches(name, names, n=1, cutoff=0)), "SITE")


def ask_if_wide(network: str) -> None:
    """A network of more than 256 addresses is let in only with a yes.

    Raises:
        RefusedError: the answer was no, or nobody is there to answer.
    """
    wide = IPv4Network(network)
    if wide.prefixlen < 24:
        context.confirm(f"Let all {wide.num_addresses} addresses of {network} reach the server's port?")


def _deployment(kit: Path | None) -> Deployment:
    if kit is not None:
        from deployer.owner import standing

        return standing(kit)
    workspace = context.workspace()
    return lead(workspace, load_spec(workspace.spec_path), realms.current())


def note(ledger: Ledger, site: str, network: str | None, remove: bool) -> list[str]:
    """Write the permission down, or take it back; returns the networks concerned."""
    if remove:
        gone = ledger.disallow(site, network)
        if not gone:
            raise UsageError(
                "not let in", participant=site, why=network or "none of its networks", next_step="fedspan allow"
            )
        return gone
    assert network is not None, "checked by the caller"
    ledger.allow(site, network)
    return [network]


def bring_up(session: Session) -> int:
    """Make the server's rules what they should be; returns how many changed."""
    plan = session.up.plan()
    steps = plan.participants[0].steps
    only_rules("server", steps)
    if steps:
        with screen(["server"]) as live:
            session.show(live)
            session.up.rules_only(plan)
    return len(steps)


def tell_noted(site: str, done: list[str], remove: bool, how: str) -> None:
    """One line for people."""
    if not context.options().json:
        verb = "may no longer reach" if remove else "may reach"
        context.say(f"{site}: {', '.join(done)} {verb} the server's port; {how}")
