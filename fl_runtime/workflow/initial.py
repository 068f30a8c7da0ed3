"""A first model from a description in job.yml: no code of the job runs on the server for it.

model:
  tensors: {weight: [64, 10], bias: [10]}
  dtype: float32          # default
  init: zeros             # or normal, uniform
  scale: 0.1              # standard deviation, or half width
  seed: 0
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.errors import JobSpecError
from fl_runtime.models.tensors import encode, write

_KEYS = {"tensors", "dtype", "init", "scale", "seed"}


def make(wanted: Any, path: Path) -> None:
    """Write the described model.

    Raises:
        JobSpecError: the description is not one.
    """
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("tensors"), Mapping) or set(wanted) - _KEYS:
        raise JobSpecError(
            "workflow.model must be a file or a description", why="like {tensors: {w: [64, 10]}, init: zeros}"
        )
    dtype, init = str(wanted.get("dtype", "float32")), wanted.get("init", "zeros")
    if dtype not in ("float16", "float32", "float64") or init not in ("zeros", "normal", "uniform"):
        raise JobSpecError("workflow.model: dtype is float16, float32 or float64; init is zeros, normal or uniform")
    rng = np.random.default_rng(int(wanted.get("seed", 0)))
    scale = float(wanted.get("scale", 0.1))
    params = {}
    for name, shape in wanted["tensors"].items():
        try:
            size = tuple(int(n) for n in shape)
        except (TypeError, ValueError):
            raise JobSpecError(f"workflow.model: the shape of {name} is {shape!r}") from None
        if init == "zeros":
            values = np.zeros(size)
        elif init == "normal":
            values = rng.normal(0.0, scale, size)
        else:
            values = rng.uniform(-scale, scale, size)
        params[str(name)] = values.astype(dtype)
    plan, buffers = encode(params)
    write(path, plan, buffers)
