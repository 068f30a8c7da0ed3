"""Jobs before a federation is taken down: what runs must end or be aborted, what is finished is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from deployer.errors import JobError, RefusedError

# states of a job that has come to its end, as the runtime names them
FINAL = frozenset({"FINISHED", "FAILED", "ABORTED"})


def running(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ids of the jobs that have not ended. Pure."""
    return [str(job["id"]) for job in jobs if job.get("state") not in FINAL]


def finished(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ids of the jobs with a result. Pure."""
    return [str(job["id"]) for job in jobs if job.get("state") == "FINISHED"]


def check_idle(jobs: Iterable[Mapping[str, Any]], abort: bool) -> list[str]:
    """The jobs to abort.

    Raises:
        RefusedError: a job runs, and aborting was not asked for.
    """
    unfinished = running(jobs)
    if unfinished and not abort:
        raise RefusedError(
            f"{'jobs are' if len(unfinished) > 1 else 'a job is'} running",
            why=", ".join(unfinished),
            next_step="wait for it, or fedspan down --abort-jobs",
        )
    return unfinished


def fetch(session: Any, jobs: list[Mapping[str, Any]], folder: Path, told: Callable[[str], None]) -> list[Path]:
    """Download the results that are not in `folder` yet; returns where they are.

    Raises:
        JobError: one could not be fetched; nothing has been taken down yet.
    """
    found = []
    for job in finished(jobs):
        target = folder / job
        if (target / "metrics.json").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found.append(session.download(job, folder))
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            raise JobError(
                f"the result of {job} could not be fetched",
                why=str(error),
                next_step="fedspan down --discard-results goes on without it",
            ) from error
        told(f"result of {job} fetched into {target}")
    return found
