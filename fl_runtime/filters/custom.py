"""Filters that somebody else wrote, in FLARE's manner: `process(shareable, fl_ctx)`, and DXOFilter on top of it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_runtime.apis import wire
from fl_runtime.apis.dxo import DXO, DataKind, from_shareable
from fl_runtime.apis.filter import ContentBlockedException, Filter
from fl_runtime.apis.fl_constant import ReservedKey
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.filters.base import FilterError, Work
from fl_runtime.filters.lazy import LazyTensors, Together
from fl_runtime.filters.views import View
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import TensorFile, dump, encode

_KINDS = {DataKind.WEIGHTS: "FULL", DataKind.WEIGHT_DIFF: "DIFF"}
_made: dict[str, Any] = {}


def load(entry: Mapping[str, Any], code: Path) -> Any:
    """The filter, made once for each process.

    Raises:
        FilterError: there is no such class in the folder, or it is no filter.
    """
    key = json.dumps([str(code), entry["path"], entry.get("args")], sort_keys=True)
    if key not in _made:
        module, _, name = str(entry["path"]).rpartition(".")
        file = code / (module.replace(".", "/") + ".py")
        if not file.is_file():
            raise FilterError(f"There is no {file.name} beside it", why=str(entry["path"]))
        if str(code) not in sys.path:
            sys.path.insert(0, str(code))
        cls = getattr(importlib.import_module(module), name, None)
        if not isinstance(cls, type) or not issubclass(cls, Filter):
            raise FilterError(
                f"{entry['path']} is no filter", why="it must be a class derived from Filter or DXOFilter"
            )
        _made[key] = cls(**(entry.get("args") or {}))
    return _made[key]


def apply_custom(entry: Mapping[str, Any], view: View, work: Work, code: Path | None) -> View:
    """Run it on the view; `work.meta` is what it made of the plain part.

    Raises:
        FilterError: it blocks the content, or returns something else than a shareable.
    """
    if code is None:
        raise FilterError("Its folder is not known")
    component = load(entry, code)
    if work.meta.get("shareable") is None:
        shareable, own = _of_model(view, work), None
    else:
        shareable, own = _of_shareable(view, work)
    fl_ctx = FLContext()
    fl_ctx.set_prop(ReservedKey.TASK_NAME, work.task)
    fl_ctx.set_prop(ReservedKey.IDENTITY_NAME, work.site)
    try:
        out = component.process(shareable, fl_ctx)
    except ContentBlockedException as error:
        raise FilterError("It blocks the content") from error
    if not isinstance(out, Shareable):
        raise FilterError("It did not return a Shareable", why=type(out).__name__)
    return _back_model(out, view, work) if own is None else _back_shareable(out, work)


def _of_model(view: View, work: Work) -> Shareable:
    """A result of the Client API, as a shareable with a lazy DXO."""
    about = dict(work.meta.get("meta") or {})
    metrics = work.meta.get("metrics")
    params = LazyTensors(view, work.scratch, but=OPTIMIZER_PREFIX)
    if params or not metrics:
        if metrics:
            about["initial_metrics"] = dict(metrics)
        shareable = DXO(DataKind.WEIGHT_DIFF if work.is_diff else DataKind.WEIGHTS, params, about).to_shareable()
    else:
        shareable = DXO(DataKind.METRICS, dict(metrics), about).to_shareable()
    optimizer = LazyTensors(view, work.scratch, OPTIMIZER_PREFIX)
    if optimizer:
        shareable["optimizer_params"] = optimizer
    if work.meta.get("current_round") is not None:
        shareable.set_header("current_round", work.meta["current_round"])
    return shareable


def _back_model(out: Shareable, view: View, work: Work) -> View:
    dxo = from_shareable(out)
    about = dict(dxo.meta)
    metrics = about.pop("initial_metrics", None)
    if dxo.data_kind == DataKind.METRICS:
        metrics, params = dict(dxo.data), _lazy({}, work)
    elif dxo.data_kind in _KINDS:
        params = _lazy(dxo.data, work)
        work.meta["params_type"] = _KINDS[dxo.data_kind]
    else:
        raise FilterError("It returned another kind of data", why=str(dxo.data_kind))
    work.meta["meta"] = _plain(about)
    work.meta["metrics"] = _plain(metrics)
    return Together(params, _lazy(out.get("optimizer_params") or {}, work, OPTIMIZER_PREFIX))


def _of_shareable(view: View, work: Work) -> tuple[Shareable, bool]:
    """A result of an executor: its own shareable; the arrays of a DXO of weights are lazy, others are few."""
    extras = LazyTensors(view, work.scratch, OPTIMIZER_PREFIX)
    small = {OPTIMIZER_PREFIX + name: extras[name] for name in extras}
    tree = dict(work.meta["shareable"])
    content: Any = tree.get("DXO")
    lazy = isinstance(content, dict) and content.get("data") == {"__params__": True}
    if lazy:
        tree["DXO"] = {**content, "data": {}}
    shareable = wire.decode({**work.meta, "shareable": tree}, dump(*encode(small)) if small else None, torch=False)
    if lazy:
        shareable["DXO"]["data"] = LazyTensors(view, work.scratch, but=OPTIMIZER_PREFIX)
    return shareable, True


def _back_shareable(out: Shareable, work: Work) -> View:
    content: Any = out.get("DXO")
    params: LazyTensors | None = None
    if isinstance(content, dict) and content.get("kind") in _KINDS and content.get("data"):
        params = _lazy(content["data"], work)
        out["DXO"] = {**content, "data": {}}
    meta, tensors = wire.encode(out)
    extras: View = TensorFile(dump(*encode(tensors)))
    if params is not None:
        meta["shareable"]["DXO"]["data"] = {"__params__": True}
        meta["params_type"] = _KINDS[content["kind"]]
    if work.meta.get("framework"):
        meta["framework"] = work.meta["framework"]
    work.meta.clear()
    work.meta.update(meta)
    return Together(*([params] if params is not None else []), extras)


def _lazy(data: Any, work: Work, prefix: str = "") -> LazyTensors:
    """What a filter left in `data`: the mapping it got, or arrays of its own (each goes to a file)."""
    if isinstance(data, LazyTensors):
        return data
    made = LazyTensors(TensorFile(b"\x02\0\0\0\0\0\0\0{}"), work.scratch, prefix)
    for name, value in dict(data).items():
        made[str(name)] = value
    return made


def _plain(value: Any) -> Any:
    """Plain data (numpy's numbers become numbers).

    Raises:
        FilterError: it can't travel.
    """

    def number(item: Any) -> Any:
        if hasattr(item, "item") and getattr(item, "ndim", 1) == 0:
            return item.item()
        raise TypeError(type(item).__name__)

    try:
        return json.loads(json.dumps(value, default=number))
    except TypeError as error:
        raise FilterError("Its meta is no plain data", why=str(error)) from None
