"""`fedspan simulate JOB`: a whole federation on this machine, without network, kits or agents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from deployer.cli import context
from deployer.errors import UsageError


def simulate(
    job: Annotated[Path, typer.Argument(help="Folder (or zip) with job.yml or job.json and the job's files.")],
    sites: Annotated[
        str | None, typer.Option("-n", "--sites", help="How many sites, or their names: 100, or site-1,site-2.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("-t", "--workers", help="Sites that run at the same time (default: one per core).")
    ] = None,
    isolate: Annotated[bool, typer.Option("--isolate", help="Each site a process of its own.")] = False,
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs for the workers in turn: 0,1.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of the job's data; {site} and {n} in it; may be repeated.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for the results.")] = Path("results"),
    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Random choices of the workflow as in that job.")
    ] = None,
) -> None:
    """Run a job on simulated sites: the same code and the same results as in a real federation."""
    if not job.exists():
        raise UsageError(f"{job} is no job's folder", next_step="fedspan simulate FOLDER_WITH_JOB_YML -n 2")
    wanted = wanted_sites(sites)
    if workers is not None and workers < 1:
        raise UsageError(f"-t {workers}: at least one site has to run", next_step=f"fedspan simulate {job} -t 2")
    from fl_runtime.simulator import simulate as run

    with Progress(job) as progress:
        done = run(
            job,
            sites=wanted,
            workers=workers,
            isolate=isolate,
            gpus=[gpu.strip() for gpu in gpus.split(",")] if gpus else (),
            data=data_pairs(data or []),
            to=to,
            job_id=job_id,
            on_event=progress,
        )
    from deployer.cli.jobs import tell_results
    from fl_runtime.admin.plot import draw

    draw(done.folder)
    tell_results(done.job, done.folder, state=done.view["state"])


def wanted_sites(text: str | None) -> int | list[str] | None:
    """`100`, or names with commas between."""
    if text is None:
        return None
    return int(text) if text.isdigit() else [name.strip() for name in text.split(",") if name.strip()]


def data_pairs(pairs: list[str]) -> dict[str, str]:
    """NAME=PATH each.

    Raises:
        UsageError: no pair.
    """
    found = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--data {pair} is not NAME=PATH", next_step="--data digits=/srv/data/{site}.npz")
        found[name] = path
    return found


class Progress:
    """Events as lines; on a terminal also a bar of the results that have come."""

    def __init__(self, job: Path) -> None:
        self._job = job
        self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if context.console().is_terminal and not context.options().json:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=context.console(), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("results", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "progress":
            if self._bar is not None:
                self._bar.update(self._task, completed=event["answers"])
            return
        if context.options().json:
            context.emit(event)
            return
        from deployer.cli.jobs import event_in_words

        context.say(f"{time.monotonic() - self._begun:7.1f} s  {event_in_words(event)}")
