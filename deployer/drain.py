"""Jobs that run on machines which are to be stopped or upgraded: refuse, wait for their end, or let them go on later.

The runtime resumes what was interrupted (a round's finished work is never computed again), so `resume` loses no work;
it delays the job, and a job whose quorum does not need the site may go on without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from deployer.crew import Crew
from deployer.errors import FedspanError, Interrupted, RefusedError
from deployer.glance import glance
from deployer.ledger import NOTHING_THERE, STOPPED, Row
from deployer.machine_run import log_in
from deployer.reach import reach_of
from deployer.results import running
from deployer.session import tell
from deployer.settings import setting
from deployer.status import seconds_of

Jobs = Literal["refuse", "drain", "resume"]

POLL_S = 1.0

OFF = NOTHING_THERE | {STOPPED}
"""Phases in which no runtime can be at work on a job."""


def server_says(crew: Crew) -> dict[str, Any] | None:
    """The server's status; None where it does not answer or is not ours to ask."""
    row = crew.deployment.ledger.participant("server")
    return None if row is None else _says(crew, row)


def _says(crew: Crew, row: Row) -> dict[str, Any] | None:
    """What the runtime on a machine says of itself; None where it says nothing, or is not ours to ask."""
    if row.target == "kit" or row.address is None or row.phase in OFF:
        return None
    try:
        reach = reach_of(row, crew.deployment.state_dir / "ssh")
        with log_in(reach, crew.interrupts, setting("JOBS_DEADLINE")) as machine:
            return glance(machine)
    except Interrupted:
        raise
    except FedspanError:
        return None


def jobs_on(status: Mapping[str, Any], name: str, role: str) -> list[str]:
    """The jobs that a participant is at work on, as the server says: all unfinished ones for the server. Pure."""
    if role == "server":
        return running(status.get("jobs") or ())
    return [str(job) for job in ((status.get("resources") or {}).get(name) or {}).get("jobs") or ()]


def jobs_there(crew: Crew, rows: Iterable[Row], verb: str) -> dict[str, str]:
    """The jobs that these are at work on, each with one of them: as the server says, else as each site itself says.

    Raises:
        RefusedError: neither says it of one whose machine is on: a job may run there.
    """
    status = server_says(crew)
    found: dict[str, str] = {}
    for row in rows:
        if row.phase in OFF:
            continue
        if status is not None:
            found.update(dict.fromkeys(jobs_on(status, row.name, row.role), row.name))
            continue
        said = _says(crew, row) if row.role == "site" else None
        if said is None:
            raise RefusedError(
                "nobody says whether a job runs there",
                participant=row.name,
                why="the server does not answer" + (", nor does the site itself" if row.role == "site" else ""),
                next_step=f"fedspan status; fedspan {verb} --resume goes ahead: what it interrupts goes on afterwards",
            )
        found.update(dict.fromkeys(map(str, said.get("jobs") or ()), row.name))
    return found


def idle_seconds(status: Mapping[str, Any], since: float, now: float) -> float:
    """How long no job has run: 0 while one does; counted from the last one's end, or from `since`. Pure."""
    jobs = list(status.get("jobs") or ())
    if running(jobs):
        return 0.0
    ends = [at for job in jobs if (at := seconds_of(job.get("ended"))) is not None]
    return max(0.0, now - max([since, *ends]))


def settle_jobs(crew: Crew, rows: Iterable[Row], jobs: Jobs, verb: str) -> None:
    """See to the jobs of those who are to be interrupted.

    Raises:
        RefusedError: a job runs (or nobody knows that none does), and nobody said what is to become of it.
        Interrupted: Ctrl-C while jobs are waited for.
    """
    if jobs == "resume":
        return
    rows = list(rows)
    told: set[str] = set()
    while busy := jobs_there(crew, rows, verb):
        if jobs == "refuse":
            raise RefusedError(
                f"{'jobs run' if len(busy) > 1 else 'a job runs'} there",
                participant=next(iter(busy.values())),
                why=", ".join(busy),
                next_step=f"fedspan {verb} --drain waits for {'their' if len(busy) > 1 else 'its'} end, "
                f"fedspan {verb} --resume interrupts: it goes on afterwards",
            )
        for job, name in busy.items():
            if job not in told:
                told.add(job)
                tell(f"{name}: waiting for the end of {job}")
        crew.interrupts.wait(POLL_S)
