"""Aggregation as a component: the same code on the server, on a site, on any node - files in, files out.

A plan is plain data: {type: mean | median | trimmed_mean | krum | optimizer | scaffold, ...}. Everything goes block by
block in site-name order, with memory of a few blocks, so that the bits are the same wherever and in whatever order of
arrival it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError, JobSpecError
from fl_runtime.models import robust, scaffold
from fl_runtime.models.average import average
from fl_runtime.models.blocks import Share
from fl_runtime.models.optimizers import OPTIMIZERS, ServerOptimizer, apply
from fl_runtime.models.tensors import TensorFile, layout, open_over

NewFile = Callable[[int], Path]
Source = Path | bytes
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Inputs:
    """What is combined: (site, weight, model) of each result; the current model; what a former round left."""

    results: Sequence[tuple[str, float, Source]]
    diff: bool  # the results are differences to the current model
    current: Source | None = None
    states: Mapping[str, Source] = field(default_factory=dict)


def states_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The tensors that it keeps from round to round beside the model."""
    if plan["type"] == "optimizer":
        return tuple(_optimizer(plan).states)
    return ("c",) if plan["type"] == "scaffold" else ()


def combine(plan: Mapping[str, Any], inputs: Inputs, new_file: NewFile) -> tuple[dict[str, Path], dict[str, Any]]:
    """The next model ("model") and states, as files; and notes for the history.

    Raises:
        JobSpecError: the plan is not one.
        FlError: the results can't be combined.
    """
    if inputs.diff and inputs.current is None:
        raise FlError("The sites sent differences, but there was no model that they could differ from")
    current = TensorFile(inputs.current) if inputs.current is not None else None
    base = current if inputs.diff else None
    shares = [Share(site, weight, TensorFile(source), base) for site, weight, source in inputs.results]
    size = max((_size(source) for _, _, source in inputs.results), default=0)
    target = new_file(size)
    try:
        return _combine(plan, shares, current, inputs, target, new_file)
    except ValueError as error:
        raise FlError("The results can't be combined", why=str(error)) from None


def _combine(
    plan: Mapping[str, Any],
    shares: list[Share],
    current: TensorFile | None,
    inputs: Inputs,
    target: Path,
    new_file: NewFile,
) -> tuple[dict[str, Path], dict[str, Any]]:
    kind = plan["type"]
    notes: dict[str, Any] = {}
    if kind == "mean" or (kind == "optimizer" and current is None):  # the first mean is the first model
        average(shares, target)
    elif kind == "median":
        robust.median(shares, target)
    elif kind == "trimmed_mean":
        robust.trimmed_mean(shares, target, float(plan.get("trim", 0.1)))
    elif kind == "krum":
        chosen = robust.krum_choice(shares, int(plan.get("byzantine", 1)), int(plan.get("keep", 1)))
        notes["chosen"] = [share.site for share in chosen]
        average([Share(share.site, 1.0, share.model, share.base) for share in chosen], target)
    elif kind in ("optimizer", "scaffold"):
        if current is None:
            raise FlError("SCAFFOLD needs a first model", next_step="set workflow.model in job.yml")
        known = {key: TensorFile(source) for key, source in inputs.states.items()}
        made = {key: new_file(4 * sum(t.count for t in current.tensors.values())) for key in states_of(plan)}
        if kind == "optimizer":
            apply(_optimizer(plan), shares, current, known, target, made)
        else:
            scaffold.step(shares, current, known.get("c"), target, made["c"], float(plan["lr"]), float(plan["part"]))
        return {"model": target, **made}, notes
    else:
        raise JobSpecError(f"There is no aggregator {kind!r}", why="mean, median, trimmed_mean, krum")
    return {"model": target}, notes


def _optimizer(plan: Mapping[str, Any]) -> ServerOptimizer:
    kind = str(plan.get("optimizer"))
    if kind not in OPTIMIZERS:
        raise JobSpecError(f"There is no server optimizer {kind!r}", why=f"there are: {', '.join(OPTIMIZERS)}")
    try:
        return OPTIMIZERS[kind](**{key: float(value) for key, value in (plan.get("options") or {}).items()})
    except (TypeError, ValueError) as error:
        raise JobSpecError(f"workflow.optimizer: {error}") from None


def _size(source: Source) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)


# --- several outputs as one result


def pack(files: Mapping[str, Path], new_file: NewFile) -> Path:
    """One file of several: their tensors as KEY/NAME. A single model stays as it is."""
    if list(files) == ["model"]:
        return files["model"]
    opened = {key: TensorFile(path) for key, path in files.items()}
    entries = {
        f"{key}/{name}": (tensor.dtype, tensor.shape)
        for key, file in opened.items()
        for name, tensor in file.tensors.items()
    }
    plan = layout(entries)
    path = new_file(plan.size)
    with open_over(path) as out:
        out.write(plan.header)
        for full, tensor in plan.tensors.items():
            key, _, name = full.partition("/")
            _copy(out.fileno(), tensor.start, opened[key], name)
        out.truncate(plan.size)
    return path


def unpack(source: Source, new_file: NewFile) -> dict[str, Path]:
    """The files again that `pack` made one of."""
    file = TensorFile(source)
    keys: dict[str, dict[str, str]] = {}
    for full in file.tensors:
        key, _, name = full.partition("/")
        keys.setdefault(key, {})[name] = full
    made = {}
    for key, names in keys.items():
        plan = layout({name: (file.tensors[full].dtype, file.tensors[full].shape) for name, full in names.items()})
        made[key] = new_file(plan.size)
        with open_over(made[key]) as out:
            out.write(plan.header)
            for name, tensor in plan.tensors.items():
                _copy(out.fileno(), tensor.start, file, names[name])
            out.truncate(plan.size)
    return made


def _copy(fd: int, at: int, source: TensorFile, name: str) -> None:
    raw = source.raw(name)
    for first in range(0, len(raw), _CHUNK):
        view = raw[first : first + _CHUNK].data
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], at + first + done)
