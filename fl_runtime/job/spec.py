"""job.yml (or job.json): what a job is, who takes part, what it needs.

name: digits
workflow:
  type: fedavg            # the algorithm, see fl_runtime/workflow
  rounds: 10
  min_sites: 2            # default: all that take part
  deadline: 600           # seconds a round may take, default none
  grace: 10               # a missing site must have been lost so long before a round closes without it
  model: model.safetensors   # or {tensors: {w: [64, 10]}, init: zeros}; default: the sites begin with their own
script: train.py          # what each site runs
args: [--epochs, "1"]
data: [digits]            # names; each site maps them to paths of its own
sites: all                # or a list
config: {lr: 0.1}         # given to the script by get_config()
framework: numpy          # or torch: as what the script gets its parameters
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fl_runtime.errors import JobSpecError
from fl_runtime.names import is_participant_name

_KEYS = ("name", "workflow", "script", "args", "data", "sites", "config", "framework", "resources", "description")


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
        }


def read_spec(folder: Path) -> JobSpec:
    """Read and check the folder's job.yml or job.json.

    Raises:
        JobSpecError: it is missing or wrong; names the file and the field.
    """
    for name in ("job.yml", "job.yaml", "job.json"):
        path = folder / name
        if path.is_file():
            break
    else:
        raise JobSpecError(f"{folder} is not a job", why="it has no job.yml")
    try:
        document = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise JobSpecError(f"{path} can't be read", why=str(error)) from None
    spec = parse_spec(document, str(path))
    if not (folder / spec.script).is_file():
        raise JobSpecError(f"{path}: script", why=f"there is no {spec.script} in {folder}")
    return spec


def parse_spec(document: Any, where: str = "job.yml") -> JobSpec:
    """Check plain data.

    Raises:
        JobSpecError: names `where` and the field.
    """
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
    if not name or not script:
        raise JobSpecError(f"{where}: {'name' if not name else 'script'} is missing")
    inside = PurePosixPath(script)
    if inside.is_absolute() or ".." in inside.parts:
        raise JobSpecError(f"{where}: script must lie inside the job's folder", why=f"it is {script!r}")
    workflow = get("workflow", (dict, str), "fedavg", "a mapping with `type`")
    workflow = {"type": workflow} if isinstance(workflow, str) else dict(workflow)
    workflow.setdefault("type", "fedavg")
    sites = document.get("sites")
    chosen = None if sites in (None, "all") else texts("sites")
    if chosen is not None and (not chosen or not all(is_participant_name(site) for site in chosen)):
        raise JobSpecError(f"{where}: sites must be `all` or a list of names", why=f"it is {sites!r}")
    for key in ("min_sites", "rounds", "deadline", "grace"):
        value = workflow.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise JobSpecError(f"{where}: workflow.{key} must be a number", why=f"it is {value!r}")
    framework = document.get("framework")
    if framework not in (None, "numpy", "torch"):
        raise JobSpecError(f"{where}: framework must be numpy or torch", why=f"it is {framework!r}")
    return JobSpec(
        name=name,
        script=script,
        workflow=workflow,
        args=texts("args"),
        data=texts("data"),
        sites=tuple(dict.fromkeys(chosen)) if chosen is not None else None,
        config=get("config", dict, {}, "a mapping"),
        framework=framework,
        resources=get("resources", dict, {}, "a mapping"),
        description=get("description", str, "", "text"),
    )
