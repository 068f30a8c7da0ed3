"""`fedspan doctor`: what stands in the way of `up`, and what was found in order, each explained. Makes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from deployer.cli import context


def doctor(
    participants: Annotated[list[str] | None, typer.Argument(help="Whom to look at (default: everybody).")] = None,
) -> None:
    """Check engine, plugins, backend, kits, credentials, quotas, sizes, images, addresses and clock; explain each."""
    from deployer.doctor import EXPLAINED, examine
    from deployer.preflight.model import refusals
    from deployer.preflight.view import lines, summary

    found = examine(participants or [])
    if context.options().json:
        context.emit({"checks": [finding.document() for finding in found], "refused": len(refusals(found))})
    else:
        for subject in dict.fromkeys(finding.subject for finding in found):
            context.say(f"{subject}: {EXPLAINED.get(subject, '')}")
            for line in lines((finding for finding in found if finding.subject == subject), everything=True):
                context.say(line.replace(f"  {subject}: ", "  ", 1))
        context.say(summary(found))
    if stopping := refusals(found):
        raise typer.Exit(stopping[0].error.exit_code)
