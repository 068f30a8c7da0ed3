"""What a job will need of the server's disk, asked before it starts: (sites + 3 + states) times the model.

A result of every site; the model that is sent, the one that is made from the results, and the last of the round before;
and what the algorithm keeps beside the model.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from fl_runtime.blobs.space import QUOTA, Space
from fl_runtime.errors import DiskFullError
from fl_runtime.job.resources import show_bytes

_STATES = {"fedavgm": 1, "scaffold": 1}
_OPTIMIZERS = {"sgd": 1}  # the others keep two
_WIDTH = {"float16": 2, "float32": 4, "float64": 8}


def states(workflow: Mapping[str, Any]) -> int:
    """How many models' worth a workflow keeps beside the global one."""
    kind = str(workflow.get("type", "fedavg")).lower()
    count = _STATES.get(kind, 0)
    if kind == "fedopt":
        optimizer = workflow.get("optimizer") or {}
        name = str(optimizer.get("type", "adam")) if isinstance(optimizer, Mapping) else str(optimizer)
        count = _OPTIMIZERS.get(name, 2)
    return count + (1 if workflow.get("best") else 0)


def model_bytes(workflow: Mapping[str, Any], bundle: Callable[[], bytes]) -> int | None:
    """Bytes of the first model; None when the sites bring it. `bundle()` is asked for a model that lies in it."""
    model = workflow.get("model")
    if isinstance(model, str):
        try:
            with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
                return archive.getinfo(model).file_size
        except (KeyError, zipfile.BadZipFile):
            return None  # the workflow says what is wrong with it
    if not isinstance(model, Mapping) or not isinstance(model.get("tensors"), Mapping):
        return None
    try:
        elements = sum(math.prod(int(n) for n in shape) for shape in model["tensors"].values())
    except (TypeError, ValueError):
        return None
    return elements * _WIDTH.get(str(model.get("dtype", "float32")), 4)


def check(workflow: Mapping[str, Any], sites: int, bundle: Callable[[], bytes], space: Space) -> None:
    """Is there room for a job's rounds?

    Raises:
        DiskFullError: there is not; names what is needed and what there is.
    """
    model = model_bytes(workflow, bundle)
    if model is None:
        return
    beside = states(workflow)
    need, free = (sites + 3 + beside) * model, space.free()
    if need > free:
        raise DiskFullError(
            f"The server's disk is too small for this job: {show_bytes(need)} are needed",
            why=f"({sites} sites + 3 + {beside} states) x {show_bytes(model)}; {show_bytes(free)} are free or allowed",
            next_step=f"free disk space on the server, or raise disk_quota in its local/resources.yml (or {QUOTA})",
        )
