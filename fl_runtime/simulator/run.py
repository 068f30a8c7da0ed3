"""`simulate`: a job's folder in, what `job download` gives out."""

from __future__ import annotations

import os
import shutil
import string
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime import processes
from fl_runtime.errors import FlError, JobError, JobSpecError
from fl_runtime.hub.state import ABORTED, FAILED, FINAL
from fl_runtime.job.bundle import job_folder
from fl_runtime.job.spec import JobSpec, read_spec
from fl_runtime.names import is_job_id, is_participant_name, new_job_id
from fl_runtime.simulator.hub import SimHub
from fl_runtime.simulator.pool import Pool
from fl_runtime.simulator.preloads import preloads

PATIENCE_S = 12.0
Event = dict[str, Any]


@dataclass(frozen=True)
class Simulation:
    """How it ended: the job's id, its view (as `Session.show` gives it), and the folder of its results."""

    job: str
    view: dict[str, Any]
    folder: Path


def simulate(
    folder: Path | str,
    *,
    sites: int | Sequence[str] | None = None,
    workers: int | None = None,
    isolate: bool = False,
    gpus: Sequence[str] = (),
    data: Mapping[str, str] | None = None,
    to: Path | str = "results",
    job_id: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Simulation:
    """Run a job on simulated sites and write its results to `to/JOB`, as `Session.download` does.

    Args:
        folder: with job.yml; or a zip of one.
        sites: how many (site-1, site-2, ...), or names; default: those that the job names, else its min_sites, or 2.
        workers: processes that run sites, one at a time each; default: the number of cores.
        isolate: each site a process of its own; `workers` of them run at once.
        gpus: for each worker in turn what it finds in CUDA_VISIBLE_DEVICES, such as ["0", "1"].
        data: name of data -> path; `{site}` and `{n}` stand for the site's name and its number from 1.
        job_id: of a real job whose random choices (sampling, order) are to be the same.
        on_event: called with each event of the job, and {"event": "progress", "answers", "sites"}.

    Raises:
        JobSpecError: the job, or what is given for it, is not right.
        JobError: the job failed; its results so far are written.
    """
    if Path(folder).is_file():
        with job_folder(Path(folder)) as unpacked:
            return simulate(
                unpacked, sites=sites, workers=workers, isolate=isolate, gpus=gpus, data=data, to=to, job_id=job_id,
                on_event=on_event,
            )  # fmt: skip
    folder = Path(folder)
    spec = read_spec(folder)
    shaped = [key for key in ("filters", "codecs") if spec.document().get(key)]
    if shaped:  # they change what comes out, so leaving them out would be another job
        raise JobSpecError(
            f"The simulator does not apply {' and '.join(shaped)}",
            why="they are done by sites and server on the way between them",
            next_step=f"fedspan poc up -n 2, then: fedspan -f poc job submit {folder}",
        )
    if spec.attach:
        raise JobSpecError(
            "The job waits for processes that attach themselves (attach: true)",
            why="a simulated site has none",
            next_step="name a `script` in job.yml, or use a real site: fedspan poc up -n 2",
        )
    names = site_names(spec, sites)
    where = data_mapping(spec, data or {}, names)
    job = job_id or new_job_id(spec.name)
    if not is_job_id(job):
        raise JobSpecError(f"{job!r} can't be a job's id", next_step="small letters, digits and dashes")
    count = max(1, min(workers or (len(gpus) or os.cpu_count() or 1), len(names)))
    target = Path(to).absolute()
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{job}.", dir=target))
    pool = Pool(names, count, isolate, lambda site: where[site])
    hub: SimHub | None = None
    try:
        shutil.copytree(folder, work / "bundle", ignore=shutil.ignore_patterns("__pycache__", ".git"))
        hub = SimHub(work / "hub", names, pool.deliver)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
        config = {
            "folder": str(work / "sites"),
            "bundle": str(work / "bundle"),
            "script": spec.script,
            "args": list(spec.args),
            "info": {
                "job": job,
                "config": spec.config,
                "framework": spec.framework,
                "executor": spec.executor,
                "federation": "simulation",
            },
            "preload": preloads(work / "bundle", spec.script),
            "gpus": list(gpus),
        }
        (work / "sites").mkdir()
        pool.start(hub, job, config, processes.job_environment({"OMP_NUM_THREADS": threads}))
        hub.start(job, spec, work / "bundle", names)
        try:
            _follow(hub, pool, job, len(names), on_event)
        except KeyboardInterrupt:
            hub.jobs.end(job, ABORTED, "interrupted")
            raise
        pool.end(PATIENCE_S)
        hub.jobs.close()  # its process has ended, the rest of its log is here
        view = _write(hub, job, target / job)
    finally:
        pool.end(0.0)
        if hub is not None:
            hub.close()
        shutil.rmtree(work, ignore_errors=True)
    if view["state"] != "FINISHED":
        raise JobError(
            f"The simulated job {job} has {view['state'].lower()}",
            why=view["cause"],
            next_step=f"less {target / job / 'logs'}/*.log",
        )
    return Simulation(job, view, target / job)


def _follow(hub: SimHub, pool: Pool, job: str, sites: int, on_event: Callable[[Event], None] | None) -> None:
    """Until the job is over."""
    after = 0
    while True:
        seen = hub.change_number()
        known = hub.store.job(job)
        assert known is not None
        for number, event in hub.store.events(job, after):
            after = number
            if on_event is not None:
                on_event(event)
        if known.state in FINAL:
            return
        if on_event is not None:
            on_event({"event": "progress", "answers": pool.answers, "sites": sites})
        why = pool.died()
        if why is not None:
            hub.jobs.end(job, FAILED, why)
        hub.wait_change(seen, 0.5)


def _write(hub: SimHub, job: str, target: Path) -> dict[str, Any]:
    from fl_runtime.admin.results import write_results

    known = hub.store.job(job)
    assert known is not None
    view = hub.desk.full(known)

    def fetch(blob: str, path: Path) -> None:
        raw = bytes.fromhex(blob)
        inline = hub.blobs.inline(raw)
        if inline is not None:
            path.write_bytes(inline)
        else:
            shutil.copyfile(hub.blobs.path(raw), path)

    def log(name: str, path: Path) -> None:
        source = hub.logs.path(job, name)
        if source.exists():
            shutil.copyfile(source, path)
        else:
            path.touch()

    write_results(view, target, fetch, log)
    return view


def site_names(spec: JobSpec, wanted: int | Sequence[str] | None) -> list[str]:
    """Who takes part.

    Raises:
        JobSpecError: a number below one, a name that is none, or not those that the job names.
    """
    if wanted is None:
        wanted = list(spec.sites) if spec.sites is not None else max(2, spec.min_sites or 2)
    if isinstance(wanted, int):
        if wanted < 1:
            raise JobSpecError(f"{wanted} sites can't take part", next_step="fedspan simulate JOB -n 2")
        if spec.sites is not None and wanted != len(spec.sites):
            raise JobSpecError(
                f"The job names {len(spec.sites)} sites, not {wanted}",
                why=", ".join(spec.sites),
                next_step="fedspan simulate JOB, without -n",
            )
        return list(spec.sites) if spec.sites is not None else [f"site-{n + 1}" for n in range(wanted)]
    names = list(dict.fromkeys(str(name) for name in wanted))
    bad = [name for name in names if not is_participant_name(name)]
    if bad or not names:
        raise JobSpecError(f"{bad[0] if bad else ''!r} can't be a site's name", next_step="letters, digits and dashes")
    absent = [site for site in spec.sites or () if site not in names]
    if absent:
        raise JobSpecError(f"The job wants the site {absent[0]}", next_step="fedspan simulate JOB, without --sites")
    return names


def data_mapping(spec: JobSpec, given: Mapping[str, str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """site -> name of data -> path.

    Raises:
        JobSpecError: a name without a path, a path where nothing lies, or a wrong placeholder.
    """
    lacking = [name for name in spec.data if name not in given]
    if lacking:
        raise JobSpecError(
            f"The job asks for the data {lacking[0]!r}",
            why="a simulated site has none of its own",
            next_step=f"add --data {lacking[0]}=PATH ({{site}} in it stands for the site's name)",
        )
    places: dict[str, dict[str, str]] = {}
    for number, site in enumerate(names, 1):
        places[site] = {}
        for name in spec.data:
            try:
                path = string.Formatter().vformat(given[name], (), {"site": site, "n": number})
            except (KeyError, IndexError, ValueError) as error:
                raise JobSpecError(
                    f"--data {name}={given[name]} is not understood",
                    why=f"{error}: placeholders are {{site}} and {{n}}",
                ) from None
            if not Path(path).exists():
                raise JobSpecError(
                    f"No data lies at {path}",
                    participant=site,
                    why=f"--data {name}={given[name]}",
                    next_step=f"ls {Path(path).parent}",
                )
            places[site][name] = str(Path(path).absolute())
    return places


__all__ = ["FlError", "Simulation", "simulate"]
