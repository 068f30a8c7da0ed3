"""`fedspan kit check`: for a hospital's IT, before day one."""

from __future__ import annotations

from pathlib import Path

from deployer.cli import context
from deployer.host_doctor import check_here, to_open
from deployer.preflight.model import MARKS, Finding, refusals, refuse
from startup_kits.kit import Endpoint, Kit


def check(folder: Path, server: str | None, proxy: str | None, state: Path | None) -> None:
    """Look, tell, and fail when something stands in the way.

    Raises:
        PreflightError: or the error of the kind of the one thing that does.
    """
    from deployer.endpoints import checked_endpoint
    from deployer.local_run import state_folder

    kit = Kit.open(folder)
    written = kit.endpoint()
    # what is asked for here is looked at, and not written into the kit
    endpoint = Endpoint(checked_endpoint(server) if server else written.server, proxy or written.proxy)
    found = check_here(kit, endpoint, state_folder(kit, state))
    opening = to_open(kit, endpoint)
    if context.options().json:
        context.emit({"findings": [finding.document() for finding in found], "open": opening})
    else:
        for finding in found:
            context.say(_line(finding))
        context.say("the firewall must let through:")
        for line in opening:
            context.say(f"  {line}")
    refuse(found)
    if not refusals(found) and not context.options().json:
        context.say("nothing stands in the way\n  next: ./start.sh")


def _line(finding: Finding) -> str:
    text = f"{MARKS[finding.level]:<3} {finding}"
    return f"{text}\n    next: {finding.next_step}" if finding.next_step else text
