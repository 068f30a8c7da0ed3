"""A first model from a description in job.yml: no code of the job runs on the server for it.

model:
  tensors: {weight: [64, 10], bias: [10]}
  dtype: float32          # default
  init: zeros             # or normal, uniform
  scale: 0.1              # standard deviation, or half width
  seed: 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.errors import JobSpecError
from fl_runtime.models.blocks import BLOCK, BlockWriter

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
    code = {"float16": "F16", "float32": "F32", "float64": "F64"}[dtype]
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in wanted["tensors"].items():
        try:
            entries[str(name)] = (code, tuple(int(n) for n in shape))
        except (TypeError, ValueError):
            raise JobSpecError(f"workflow.model: the shape of {name} is {shape!r}") from None
    rng = np.random.default_rng(int(wanted.get("seed", 0)))
    scale = float(wanted.get("scale", 0.1))
    with BlockWriter(path, entries) as out:
        for name, (_, shape) in entries.items():  # in the order of the description: the numbers depend on it
            for first in range(0, math.prod(shape), BLOCK):
                count = min(BLOCK, math.prod(shape) - first)
                if init == "zeros":
                    out.put(name, first, np.zeros(count))
                elif init == "normal":
                    out.put(name, first, rng.normal(0.0, scale, count))
                else:
                    out.put(name, first, rng.uniform(-scale, scale, count))
