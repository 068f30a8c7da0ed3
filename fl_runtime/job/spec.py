"""job.yml (or job.json): what a job is, who takes part, what it needs.

name: digits
workflow:
  type: fedavg            # the algorithm, see fl_runtime/workflow
  rounds: 10
  min_sites: 2            # default: all that take part
  deadline: 600           # seconds a round may take, default none
  grace: 10               # a missing site must have been lost so long before a round closes without it
  model: model.safetensors   # or {tensors: {w: [64, 10]}, init: zeros}; default: the sites begin with their own
  aggregate_at: server    # or a site's name, or rotate (another site each round)
                          # own code: {type: controller, path: mine.MyController, args: {}, components: {}}
script: train.py          # what each site runs; or one of the next two
executor: {path: mine.MyExecutor, args: {}, tasks: [train], components: {}}   # code of the folder: module.Class
attach: true              # nothing is started: a process that somebody else starts (a notebook) attaches itself
args: [--epochs, "1"]
data: [digits]            # names; each site maps them to paths of its own
sites: all                # or a list
config: {lr: 0.1}         # given to the script by get_config()
framework: numpy          # or torch: as what the script gets its parameters
priority: 0               # higher goes first when sites are busy
requirements: [numpy>=1.26]   # checked on each site, never installed (unless the site has a folder of wheels)
resources: {gpus: 1, gpu_memory: 16GB, memory: 8GB, slots: 1}   # on each site, reserved before the job starts
network: none             # the script gets no network; the site must be able to keep it away
filters: {results: [{type: clip_norm, max_norm: 1.0}], tasks: []}   # change values; the site's own come last
codecs: [{type: quantize8, on: results}, {type: zstd}]   # change what travels only
tracking: {csv: true, plot: true}   # what `job download` makes of the metrics beside metrics.json (both by default)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fl_runtime.codecs.spec import parse_codecs
from fl_runtime.errors import JobSpecError
from fl_runtime.filters.registry import parse_filters
from fl_runtime.job.bundle import JOB_FILES
from fl_runtime.job.requirements import parse_requirement
from fl_runtime.job.resources import Need, parse_need
from fl_runtime.names import is_participant_name
from fl_runtime.plain import check_plain, read_plain

_KEYS = (
    *("name", "workflow", "controller", "script", "executor", "attach", "args", "data", "sites", "config", "framework"),
    *("resources", "tracking", "description", "priority", "requirements", "network", "filters", "codecs"),
)
TRACKING = ("csv", "plot")


@dataclass(frozen=True)
class JobSpec:
    """A job as its submitter describes it. Settings of a workflow are checked by the workflow."""

    name: str
    script: str
    workflow: dict[str, Any]
    args: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    sites: tuple[str, ...] | None = None  # None = all
    config: dict[str, Any] = field(default_factory=dict)
    framework: str | None = None
    resources: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    executor: dict[str, Any] | None = None  # path, args, tasks, components
    attach: bool = False
    tracking: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    requirements: tuple[str, ...] = ()
    network: str | None = None
    filters: dict[str, Any] = field(default_factory=dict)  # results, tasks, server: see fl_runtime/filters
    codecs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def need(self) -> Need:
        """What it takes on each site."""
        return parse_need(self.resources)

    @property
    def entry(self) -> str:
        """What runs on a site, as a site's list of allowed scripts names it: the script, or the executor's path."""
        return self.executor["path"] if self.executor else self.script

    @property
    def min_sites(self) -> int | None:
        value = self.workflow.get("min_sites")
        return int(value) if value is not None else None

    def document(self) -> dict[str, Any]:
        """As plain data; `parse_spec` reads it back."""
        return {
            "name": self.name,
            "script": self.script,
            "workflow": self.workflow,
            "args": list(self.args),
            "data": list(self.data),
            "sites": "all" if self.sites is None else list(self.sites),
            "config": self.config,
            "framework": self.framework,
            "resources": self.resources,
            "description": self.description,
            "executor": self.executor,
            "attach": self.attach,
            "tracking": self.tracking,
            "priority": self.priority,
            "requirements": list(self.requirements),
            "network": self.network,
            "filters": self.filters,
            "codecs": self.codecs,
        }


def read_spec(folder: Path) -> JobSpec:
    """Read and check the folder's job.yml or job.json.

    Raises:
        JobSpecError: it is missing or wrong; names the file and the field.
    """
    found = [folder / name for name in JOB_FILES if (folder / name).is_file()]
    if len(found) != 1:
        why = "it has " + (" and ".join(path.name for path in found) or "no job.yml and no job.json")
        raise JobSpecError(f"{folder} is not a job", why=why)
    path = found[0]
    try:
        document = read_plain(path)
    except ValueError as error:
        raise JobSpecError(f"{path} can't be read", why=str(error)) from None
    spec = parse_spec(document, str(path))
    if spec.script and not (folder / spec.script).is_file():
        raise JobSpecError(f"{path}: script", why=f"there is no {spec.script} in {folder}")
    return spec


def parse_spec(document: Any, where: str = "job.yml") -> JobSpec:
    """Check plain data.

    Raises:
        JobSpecError: names `where` and the field.
    """
    try:
        check_plain(document)
    except ValueError as error:
        raise JobSpecError(f"{where} must hold plain data", why=str(error)) from None
    if not isinstance(document, dict):
        raise JobSpecError(f"{where} must be a mapping")
    for key in document:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            raise JobSpecError(f"{where}: unknown key {key!r}", why=f"did you mean {near[0]!r}?" if near else None)

    def get(key: str, kind: type | tuple[type, ...], default: Any, wanted: str) -> Any:
        value = document.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise JobSpecError(f"{where}: {key} must be {wanted}", why=f"it is {value!r}")
        return value

    def texts(key: str) -> tuple[str, ...]:
        values = get(key, list, [], "a list")
        if not all(isinstance(value, (str, int, float)) for value in values):
            raise JobSpecError(f"{where}: {key} must be a list of words")
        return tuple(str(value) for value in values)

    name = get("name", str, None, "a word")
    script = get("script", str, None, "a file of the job")
    executor = _component(document.get("executor"), f"{where}: executor")
    attach = document.get("attach") or False
    if not isinstance(attach, bool):
        raise JobSpecError(f"{where}: attach must be true or false", why=f"it is {attach!r}")
    if not name or not (script or executor or attach):
        raise JobSpecError(f"{where}: {'name' if not name else 'script'} is missing")
    if sum(map(bool, (script, executor, attach))) > 1:
        raise JobSpecError(f"{where}: a site runs one of script, executor and attach", why="several are given")
    script = script or ""
    inside = PurePosixPath(script)
    if inside.is_absolute() or ".." in inside.parts:
        raise JobSpecError(f"{where}: script must lie inside the job's folder", why=f"it is {script!r}")
    workflow = get("workflow", (dict, str), "fedavg", "a mapping with `type`")
    workflow = {"type": workflow} if isinstance(workflow, str) else dict(workflow)
    controller = _component(document.get("controller"), f"{where}: controller")
    if controller is not None:
        workflow = {**workflow, **controller, "type": "controller"}
    kind = workflow.get("type") or "fedavg"
    if not isinstance(kind, str):
        raise JobSpecError(f"{where}: workflow.type must be a word", why=f"it is {kind!r}")
    workflow["type"] = kind.lower()  # here only: whoever reads it later compares it as it is
    if runs_own_code(workflow):
        _component(workflow, f"{where}: workflow")
    sites = document.get("sites")
    chosen = None if sites in (None, "all") else texts("sites")
    if chosen is not None and (not chosen or not all(is_participant_name(site) for site in chosen)):
        raise JobSpecError(f"{where}: sites must be `all` or a list of names", why=f"it is {sites!r}")
    for key in ("min_sites", "rounds", "deadline", "grace"):
        value = workflow.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise JobSpecError(f"{where}: workflow.{key} must be a number", why=f"it is {value!r}")
    for key, known in (("late", ("drop", "use")), ("below_quorum", ("wait", "fail"))):
        if workflow.get(key) not in (None, *known):
            why = f"it is {workflow[key]!r}"
            raise JobSpecError(f"{where}: workflow.{key} must be {' or '.join(known)}", why=why)
    framework = document.get("framework")
    if framework not in (None, "numpy", "torch"):
        raise JobSpecError(f"{where}: framework must be numpy or torch", why=f"it is {framework!r}")
    resources = get("resources", dict, {}, "a mapping")
    requirements = texts("requirements")
    try:
        parse_need(resources)
    except ValueError as error:
        raise JobSpecError(f"{where}: resources", why=str(error)) from None
    try:
        for requirement in requirements:
            parse_requirement(requirement)
    except ValueError as error:
        raise JobSpecError(f"{where}: requirements", why=str(error)) from None
    network = document.get("network")
    if network not in (None, "none", "any"):
        raise JobSpecError(f"{where}: network must be none or any", why=f"it is {network!r}")
    tracking = get("tracking", dict, {}, "a mapping")
    for key, value in tracking.items():
        if key not in TRACKING or not isinstance(value, bool):
            why = f"there are {' and '.join(TRACKING)}, true or false; it has {key}: {value!r}"
            raise JobSpecError(f"{where}: tracking", why=why)
    return JobSpec(
        name=name,
        script=script,
        workflow=workflow,
        args=texts("args"),
        data=texts("data"),
        sites=tuple(dict.fromkeys(chosen)) if chosen is not None else None,
        config=get("config", dict, {}, "a mapping"),
        framework=framework,
        resources=resources,
        description=get("description", str, "", "text"),
        executor=executor,
        attach=attach,
        tracking=tracking,
        priority=get("priority", int, 0, "a whole number"),
        requirements=requirements,
        network=None if network == "any" else network,
        filters=parse_filters(document.get("filters"), where),
        codecs=parse_codecs(document.get("codecs"), where),
    )


def runs_own_code(workflow: Mapping[str, Any]) -> bool:
    """Whether the job's process on the server loads classes that the job names.

    The server keeps such a process apart, and no other one loads any: both ask here.
    """
    return workflow.get("type") == "controller" or any(workflow.get(key) is not None for key in ("path", "components"))


def _component(value: Any, where: str) -> dict[str, Any] | None:
    """Own code of the job's folder: {path: module.Class, args: {...}}."""
    if value is None:
        return None
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise JobSpecError(f"{where} must be {{path: module.Class, args: {{...}}}}", why=f"its path is {path!r}")
    if not isinstance(value.get("args") or {}, dict):
        raise JobSpecError(f"{where}: args must be a mapping", why=f"it is {value['args']!r}")
    return dict(value)
