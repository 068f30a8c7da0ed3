"""Ready means registered: `up` ends when the server reports each site that it deployed, or says which did not come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.crew import Crew
from deployer.errors import FedspanError, NotRegisteredError
from deployer.machine_run import log_in
from deployer.reach import Reach
from deployer.settings import setting

if TYPE_CHECKING:
    from deployer.ssh import Machine

LOG_LINES = 15


@dataclass(frozen=True)
class Awaited:
    """A site whose registration is waited for, and how to look at its log if it does not come."""

    name: str
    reach: Reach | None


def registered(status: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The sites that a server's status reports as registered. Pure."""
    sites = (status or {}).get("sites") or {}
    return {name: dict(site) for name, site in sites.items() if site.get("registered")}


def wait_for(crew: Crew, server: Reach, sites: Iterable[Awaited], deadline: float | None = None) -> dict[str, Any]:
    """Wait until the server reports every site; returns its last status.

    Raises:
        NotRegisteredError: some did not come; the message shows the end of the first one's log.
        UnreachableError: the server's machine does not answer.
    """
    awaited = {site.name: site for site in sites}
    missing = dict(awaited)
    end = time.monotonic() + (setting("REGISTER_DEADLINE") if deadline is None else deadline)
    status: dict[str, Any] = {}
    with log_in(server, crew.interrupts, setting("SSH_DEADLINE")) as machine:
        while True:
            status = server_status(machine) or status
            for name in [name for name in missing if name in registered(status)]:
                del missing[name]
                crew.screen.phase(name, "registered")
                crew.deployment.ledger.record(name, "registered")
            if not missing:
                return status
            if time.monotonic() > end:
                break
            crew.interrupts.wait(setting("REGISTER_INTERVAL"))
    for name in missing:
        crew.failed(name, NotRegisteredError("did not register with the server", participant=name))
    raise not_registered(crew, list(missing.values()), len(awaited))


def server_status(machine: Machine) -> dict[str, Any] | None:
    """What the runtime on a machine says of itself; None while it does not run."""
    from deployer.bootstrap import runtime_status

    return runtime_status(machine)


def not_registered(crew: Crew, missing: list[Awaited], total: int) -> NotRegisteredError:
    """The error that says who did not come, with the end of a log that tells why."""
    names = ", ".join(site.name for site in missing)
    tails = [f"  {site.name}'s log ends:\n{_indent(log_end(crew, site.reach))}" for site in missing[:3]]
    return NotRegisteredError(
        f"{len(missing)} of {total} sites did not register with the server",
        participant=missing[0].name if len(missing) == 1 else None,
        why=f"{names}\n" + "\n".join(tails),
        next_step=f"fedspan logs {missing[0].name}; fedspan up tries again",
    )


def log_end(crew: Crew, reach: Reach | None) -> str:
    """The last lines of a participant's log, or why they can't be read."""
    if reach is None:
        return "its owner has the log"
    from deployer.bootstrap import runtime_log

    try:
        with log_in(reach, crew.interrupts, setting("STATUS_DEADLINE")) as machine:
            text = runtime_log(machine, tail=LOG_LINES)
    except FedspanError as error:
        return f"(it can't be read: {error.what})"
    return text.rstrip() or "(it is empty)"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
