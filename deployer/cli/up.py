"""`fedspan up`: deploy a federation (the lead), or one kit (its owner)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployer.errors import UsageError


def up(
    participants: Annotated[list[str] | None, typer.Argument(help="Whom to deploy (default: everybody).")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="Apply exactly this saved plan.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look at the clouds first: put right what changed.")
    ] = False,
    ttl: Annotated[str | None, typer.Option("--ttl", help="Sites' machines end themselves: 90m, 8h, 3d.")] = None,
    kit: Annotated[Path | None, typer.Option("--kit", help="Deploy this kit, as its owner.")] = None,
    cloud: Annotated[str | None, typer.Option("--cloud", help="With --kit: aws or azure.")] = None,
    region: Annotated[str | None, typer.Option(help="With --kit: the region.")] = None,
    zone: Annotated[str | None, typer.Option(help="With --kit: the zone.")] = None,
    size: Annotated[str | None, typer.Option(help="With --kit: the machine's size.")] = None,
    profile: Annotated[str | None, typer.Option(help="With --kit: your AWS profile.")] = None,
    subscription: Annotated[str | None, typer.Option(help="With --kit: your Azure subscription.")] = None,
    server: Annotated[str | None, typer.Option(help="With --kit: the server's HOST:PORT.")] = None,
    ca_fingerprint: Annotated[str | None, typer.Option(help="With --kit: the federation's CA.")] = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="Where a region has no room, go to the fallback_regions.")
    ] = False,
    passphrase_file: Annotated[Path | None, typer.Option(help="The CA's passphrase, if kits must be made.")] = None,
    max_hourly_cost: Annotated[float | None, typer.Option(help="Refuse what lists above so many dollars.")] = None,
    allow_unknown_price: Annotated[bool, typer.Option(help="With a cap: unknown prices count nothing.")] = False,
) -> None:
    """Deploy: provision what is missing, show the plan, ask; addresses, machines, kits; wait for registration."""
    from deployer.cost import Cap

    cap = Cap(max_hourly_cost, allow_unknown_price)
    if kit is not None:
        lead: dict[str, object] = {"participants": participants, "--plan": plan, "--allow-fallback": allow_fallback}
        lead.update({"--ttl": ttl, "--passphrase-file": passphrase_file})
        if strange := [name for name, value in lead.items() if value]:
            raise UsageError(
                "--kit deploys one kit",
                why=f"only the lead's up takes {', '.join(strange)}",
                next_step=f"fedspan up --kit {kit} --cloud aws",
            )
        from deployer.owner import up as deploy_kit

        deploy_kit(
            kit,
            cloud,
            region=region,
            zone=zone,
            size=size,
            profile=profile,
            subscription=subscription,
            server=server,
            ca_fingerprint=ca_fingerprint,
            cap=cap,
            refresh=refresh,
        )
        return
    strays = {"--cloud": cloud, "--region": region, "--zone": zone, "--size": size, "--profile": profile}
    strays.update({"--subscription": subscription, "--server": server, "--ca-fingerprint": ca_fingerprint})
    if stray := next((name for name, value in strays.items() if value is not None), None):
        raise UsageError(
            f"{stray} goes with --kit",
            why="federation.yml says it for a whole federation",
            next_step=f"fedspan up --kit DIR {stray} …",
        )
    from deployer.expiry_units import parse_ttl
    from deployer.session import deploy

    ttl_s = parse_ttl(ttl) if ttl else None
    deploy(
        participants or [],
        plan,
        passphrase_file,
        cap,
        allow_fallback=allow_fallback,
        refresh=refresh,
        ttl_s=ttl_s,
    )
