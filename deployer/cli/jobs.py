"""`fedspan job …`: submit and follow federated jobs, with an admin's kit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context
from deployer.cli.job_words import ENDED, best_in_words, duration
from deployer.errors import JobError, KitError, UsageError

if TYPE_CHECKING:
    from fl_runtime.admin import Session

job_app = typer.Typer(help="Submit and follow federated jobs.", no_args_is_help=True, rich_markup_mode=None)

KitOption = Annotated[Path | None, typer.Option("--kit", help="The admin's kit (default: the first lead's).")]


def admin_kit(kit: Path | None) -> Path:
    """The kit to act with: the given one, or that of the spec's first lead.

    Raises:
        KitError: there is none yet.
    """
    if kit is not None:
        return kit
    from startup_kits.spec import load_spec

    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    lead = next((name for name, admin in spec.admins.items() if admin.role == "lead"), None)
    assert lead is not None, "a spec without a lead is refused when it is read"
    path = workspace.kits_dir / lead
    if not path.is_dir():
        raise KitError("there is no kit yet", participant=lead, next_step="fedspan provision")
    return path


def session(kit: Path | None) -> Session:
    """A connection to the server with an admin's kit."""
    path = admin_kit(kit)
    from fl_runtime.admin import Session
    from startup_kits.kit import Kit

    opened = Kit.open(path)
    if opened.role != "admin":
        raise UsageError(
            "jobs are submitted with an admin's kit",
            participant=opened.name,
            why=f"this is a {opened.role}'s",
            next_step="fedspan job list --kit kits/ADMIN, or without --kit in the federation's folder",
        )
    if opened.endpoint().server is None:
        raise UsageError(
            "the server's address is not known to the kit",
            participant=path.name,
            why=f"{path}/local/endpoint.yml names none",
            next_step="fedspan up writes it",
        )
    return Session(path)


@contextmanager
def about() -> Iterator[None]:
    """Questions about one job: that there is none of that id is a mistake of the command, not a failed job.

    Raises:
        UsageError: there is no such job.
    """
    from fl_runtime.errors import JobError as NoSuchJob

    try:
        yield
    except NoSuchJob as error:  # the only one that a question can end with: the server's NOT_FOUND
        raise UsageError(error.what, why=error.why, next_step="fedspan job list") from error


@job_app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="Folder (or zip) with job.yml or job.json and the job's files.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    kit: KitOption = None,
) -> None:
    """Submit a job; prints its id. With --wait, follow it to its end."""
    if not folder.is_file() and not any((folder / name).is_file() for name in ("job.yml", "job.yaml", "job.json")):
        raise UsageError(
            f"{folder} is no job's folder", why="it has no job.yml", next_step="fedspan job submit FOLDER_WITH_JOB_YML"
        )
    with session(kit) as connection:
        job = connection.submit(folder)
        if context.options().json and not wait:
            context.emit({"job": job})
        elif not wait:
            context.say(f"{job} submitted\n  next: fedspan job show {job}")
        else:
            if not context.options().json:
                context.say(f"{job} submitted")
            follow(connection, job)


def follow(connection: Session, job: str) -> None:
    """Tell every event of a job until it has ended. Raises JobError when it did not finish well."""

    def tell(event: dict[str, Any]) -> None:
        if context.options().json:
            context.emit({"job": job, **event})
        else:
            context.say(f"{job}: {event_in_words(event)}")

    view = connection.monitor(job, tell)
    if context.options().json:
        context.emit(view)
    if view["state"] != "FINISHED":
        raise JobError(
            f"job {job} has {str(view['state']).lower()}",
            why=view.get("cause"),
            next_step=f"fedspan job logs {job}",
        )


def event_in_words(event: dict[str, Any]) -> str:
    """One event of a job as a line: its kind, then what belongs to it."""
    kind = str(event.get("event", "event"))
    metrics = event.get("metrics")
    values = metrics.items() if isinstance(metrics, dict) else ()
    numbers = [f"{name} {value:.4g}" for name, value in values if isinstance(value, (int, float))]
    words = [str(event[name]) for name in ("site", "state", "cause", "why") if event.get(name)]
    head = f"round {event['round']}" if kind == "round" and "round" in event else kind
    return " ".join([head, *words, *numbers])


@job_app.command("list")
def list_(kit: KitOption = None) -> None:
    """All jobs, oldest first."""
    with session(kit) as connection:
        jobs = connection.jobs()
    if context.options().json:
        context.emit(jobs)
        return
    if not jobs:
        context.say("no jobs\n  next: fedspan job submit FOLDER")
        return
    context.say(jobs_table(jobs))


def jobs_table(jobs: list[dict[str, Any]]) -> Any:
    """For the screen."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "name", "state", "round", "detail"):
        table.add_column(heading, no_wrap=heading != "detail")
    for job in jobs:
        rounds = f"{job.get('round', '')}/{job.get('rounds', '')}"
        detail = job.get("cause") or job.get("detail") or ""
        table.add_row(str(job["id"]), str(job.get("name", "")), str(job["state"]).lower(), rounds, str(detail))
    return table


@job_app.command()
def show(job: Annotated[str, typer.Argument(help="The job's id.")], kit: KitOption = None) -> None:
    """Everything about one job: its state, its sites, its rounds."""
    with session(kit) as connection, about():
        tell_view(connection.show(job))


def tell_view(view: dict[str, Any]) -> None:
    """Everything about a job, for the screen."""
    if context.options().json:
        context.emit(view)
        return
    context.say(f"{view['id']}: {view.get('name', '')}, {str(view['state']).lower()}")
    if detail := view.get("cause") or view.get("detail"):
        context.say(f"  {detail}")
    context.say(f"  submitted {view['submitted']} by {view['submitter']}{duration(view)}")
    for site, row in view["sites"].items():
        words = [row["state"], row.get("why") or "", f"(its task: {row['task']})" if row.get("task") else ""]
        context.say(f"  {site}: {' '.join(word for word in words if word)}")
    for entry in view.get("history") or []:
        context.say(f"  {event_in_words({'event': 'round', **entry})}")
    if best := view.get("best_metric"):
        context.say(f"  best: {best_in_words(best)}")
    if view.get("model"):
        context.say(f"  next: fedspan job download {view['id']}")


@job_app.command()
def logs(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    participant: Annotated[str | None, typer.Argument(help="Only this one's.")] = None,
    follow_: Annotated[bool, typer.Option("-f", "--follow", help="Stay until the job has ended.")] = False,
    kit: KitOption = None,
) -> None:
    """What the job's processes wrote, at the server and at the sites."""
    with session(kit) as connection, about():
        tell_logs(connection.logs(job, participant, follow=follow_))


def tell_logs(pieces: Iterator[tuple[str, str]]) -> None:
    """Logs as they come, each line with its participant."""
    for name, text in pieces:
        if context.options().json:
            context.emit({"participant": name, "text": text})
            continue
        for line in text.splitlines():
            context.say(f"{name} | {line}")


@job_app.command()
def download(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for it.")] = Path("results"),
    kit: KitOption = None,
) -> None:
    """Fetch what a job has made: model, metrics, history, logs, and a plot of the metrics."""
    with session(kit) as connection:
        with about():
            connection.show(job)
        to.mkdir(parents=True, exist_ok=True)
        path = connection.download(job, to)
    tell_results(job, path)


def tell_results(job: str, path: Path, **more: Any) -> None:
    """Where a job's results lie, what there is, and why there is no plot."""
    from fl_runtime.admin.plot import NAME, why_none

    files = sorted(file.name + ("/" if file.is_dir() else "") for file in path.iterdir())
    if context.options().json:
        context.emit({"job": job, "path": str(path), "files": files, **more})
        return
    context.say(f"{job}: {path}\n  {', '.join(files)}")
    if NAME not in files:
        context.say(f"  no {NAME}: {why_none(path)}")


@job_app.command()
def clone(
    job: Annotated[str, typer.Argument(help="The id of the job to run once more.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    kit: KitOption = None,
) -> None:
    """Submit a job's bundle again, signed by you; prints the new job's id."""
    with session(kit) as connection:
        with about():
            new = connection.clone(job)
        if context.options().json and not wait:
            context.emit({"job": new, "of": job})
        else:
            if not context.options().json:
                context.say(f"{new} submitted, a clone of {job}\n  next: fedspan job show {new}")
            if wait:
                follow(connection, new)


@job_app.command()
def monitor(job: Annotated[str, typer.Argument(help="The job's id.")], kit: KitOption = None) -> None:
    """Follow a job's events from its first to its end."""
    with session(kit) as connection, about():
        connection.show(job)
        follow(connection, job)


@job_app.command()
def delete(job: Annotated[str, typer.Argument(help="The job's id.")], kit: KitOption = None) -> None:
    """Forget a job that has ended: its models, logs and everything else on the server. Asks first."""
    with session(kit) as connection:
        with about():
            view = connection.show(job)
        if view["state"] in ENDED:
            context.confirm(f"Delete {job} ({view['state'].lower()}) with its models and logs from the server?")
        connection.delete(job)
    if context.options().json:
        context.emit({"job": job, "deleted": True})
    else:
        context.say(f"{job}: deleted")


@job_app.command()
def abort(job: Annotated[str, typer.Argument(help="The job's id.")], kit: KitOption = None) -> None:
    """End a job now."""
    with session(kit) as connection, about():
        view = connection.abort(job)
    if context.options().json:
        context.emit(view)
    else:
        context.say(f"{job}: {str(view.get('state', 'aborted')).lower()}")
