"""FLModel: what travels between the workflow and the script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import TensorFile, dump, encode, is_torch, write
from fl_runtime.names import INLINE_LIMIT


class ParamsType(str, Enum):
    """FULL: the weights themselves. DIFF: their difference to the weights that were received."""

    FULL = "FULL"
    DIFF = "DIFF"


class MetaKey:
    """Keys of `FLModel.meta` with a meaning."""

    NUM_STEPS_CURRENT_ROUND = "NUM_STEPS_CURRENT_ROUND"  # the weight of a result; 1 when absent
    SITE_NAME = "site_name"


class FLModel:
    """A model with what belongs to it. All fields are optional.

    Args:
        params_type: ParamsType or its name; FULL when there are params.
        params: name -> numpy array or torch tensor (a state_dict).
        optimizer_params: name -> array or tensor; travels, is not averaged.
        metrics: name -> number. With a training result: of the received global model, before training.
        start_round, current_round, total_rounds: rounds count from 0.
        meta: plain data; `MetaKey.NUM_STEPS_CURRENT_ROUND` weighs the result.
    """

    def __init__(
        self,
        params_type: ParamsType | str | None = None,
        params: Mapping[str, Any] | None = None,
        optimizer_params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        start_round: int | None = 0,
        current_round: int | None = None,
        total_rounds: int | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(f"params must map names to arrays, not be {type(params).__name__}")
        self.params_type = ParamsType(params_type) if params_type is not None else (ParamsType.FULL if params else None)
        self.params = dict(params) if params is not None else None
        self.optimizer_params = dict(optimizer_params) if optimizer_params is not None else None
        self.metrics = {str(key): _number(key, value) for key, value in metrics.items()} if metrics else metrics and {}
        self.start_round = start_round
        self.current_round = current_round
        self.total_rounds = total_rounds
        self.meta: dict[str, Any] = dict(meta) if meta else {}

    def __repr__(self) -> str:
        tensors = len(self.params or {})
        return f"FLModel({self.params_type}, {tensors} tensors, round {self.current_round}, metrics {self.metrics})"


def _number(key: Any, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metric {key!r} must be a number, not {value!r}") from None


def to_wire(model: FLModel) -> tuple[dict[str, Any], Any]:
    """The model's plain part, and a plan for its tensors (None when there are none): see `store`."""
    tensors = dict(model.params or {})
    for name, value in (model.optimizer_params or {}).items():
        tensors[OPTIMIZER_PREFIX + name] = value
    meta = {
        "params_type": model.params_type.value if model.params_type else None,
        "metrics": model.metrics,
        "start_round": model.start_round,
        "current_round": model.current_round,
        "total_rounds": model.total_rounds,
        "meta": _plain(model.meta),
    }
    if any(is_torch(value) for value in tensors.values()):
        meta["framework"] = "torch"
    return meta, encode(tensors) if tensors else None


def store(plan: Any, new_file: Callable[[int], Path]) -> tuple[bytes, Path | None]:
    """Small models as bytes, larger ones in a file that `new_file(size)` gives."""
    if plan is None:
        return b"", None
    lay, buffers = plan
    if lay.size <= INLINE_LIMIT:
        return dump(lay, buffers), None
    path = new_file(lay.size)
    write(path, lay, buffers)
    return b"", path


def from_wire(meta: Mapping[str, Any], source: Path | bytes | None, framework: str) -> FLModel:
    """The other way; parameters are private maps of the file, as numpy arrays or torch tensors."""
    params: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    if source is not None:
        file = TensorFile(source)
        get = file.torch if framework == "torch" else file.array
        params = {name: get(name) for name in file.tensors if not name.startswith(OPTIMIZER_PREFIX)}
        optimizer = {
            name[len(OPTIMIZER_PREFIX) :]: get(name) for name in file.tensors if name.startswith(OPTIMIZER_PREFIX)
        } or None
    return FLModel(
        params_type=meta.get("params_type"),
        params=params if params is not None else {},
        optimizer_params=optimizer,
        metrics=meta.get("metrics"),
        start_round=meta.get("start_round", 0),
        current_round=meta.get("current_round"),
        total_rounds=meta.get("total_rounds"),
        meta=meta.get("meta"),
    )


def _plain(value: Any) -> Any:
    """Plain data only: numbers, texts, lists, maps (numpy scalars become numbers)."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _plain(value.item())
    raise TypeError(f"meta holds {type(value).__name__}; only numbers, texts, lists and maps travel there")
