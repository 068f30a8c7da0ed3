"""Shareables on the wire: arrays are one safetensors blob, the rest is JSON. Nothing is pickled.

A DXO of weights or differences travels as an FLModel does (its arrays under their own names), so that a controller and
a script with the Client API, or a built-in workflow and an executor, understand each other. All other arrays and byte
strings get numbered names. Plain data is numbers, texts, lists, tuples, sets and maps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.apis.dxo import DXO, DataKind, MetaKey
from fl_runtime.apis.shareable import ReservedHeaderKey, ReturnCode, Shareable
from fl_runtime.errors import ProtocolError
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import TensorFile, dump, has_torch, is_torch
from fl_runtime.models.tensors import encode as encode_tensors

_EXTRA = OPTIMIZER_PREFIX + "shareable."  # belongs to no model: averaging leaves it alone
_MARKS = ("__tensor__", "__bytes__", "__tuple__", "__set__", "__map__", "__dxo__", "__shareable__", "__params__")
_MAX_DEPTH = 64
_PARAMS = {DataKind.WEIGHTS: "FULL", DataKind.WEIGHT_DIFF: "DIFF"}
Tensors = dict[str, Any]


def encode(shareable: Shareable) -> tuple[dict[str, Any], Tensors]:
    """The plain part (JSON), and the arrays by name.

    Raises:
        TypeError: it holds something that is neither plain data nor arrays; names the place.
    """
    tensors: Tensors = {}
    meta: dict[str, Any] = {"params_type": None, "metrics": None, "meta": {}}
    tree: dict[str, Any] = {}
    for key, value in shareable.items():
        if key == "DXO" and shareable.get_content_type() == "DXO" and isinstance(value, dict):
            tree[key] = _dxo(value, meta, tensors)
        else:
            tree[key] = _encode(value, tensors, key, 0)
    headers = shareable.get(ReservedHeaderKey.HEADERS) or {}
    meta["current_round"] = headers.get("current_round", meta["meta"].get(MetaKey.CURRENT_ROUND))
    meta["total_rounds"] = headers.get("num_rounds", meta["meta"].get(MetaKey.TOTAL_ROUNDS))
    code = headers.get(ReservedHeaderKey.RC, ReturnCode.OK)
    if code != ReturnCode.OK:
        meta["return_code"] = str(code) + (f": {headers['why']}" if headers.get("why") else "")
    meta["shareable"] = tree
    if any(is_torch(value) for value in tensors.values()):
        meta["framework"] = "torch"
    return meta, tensors


def _dxo(content: dict[str, Any], meta: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """The DXO of the top: weights under their own names, and what an FLModel would say of it."""
    kind, data, about = content.get("kind"), content.get("data") or {}, content.get("meta") or {}
    plain = _encode(about, tensors, "meta", 0)
    meta["meta"] = {key: value for key, value in plain.items() if key not in _MARKS}
    metrics = data if kind == DataKind.METRICS else about.get(MetaKey.INITIAL_METRICS)
    if isinstance(metrics, dict):
        numbers = {str(key): _number(value) for key, value in metrics.items()}
        meta["metrics"] = {key: value for key, value in numbers.items() if value is not None}
    if kind in _PARAMS and data and all(isinstance(key, str) for key in data) and _all_arrays(data):
        meta["params_type"] = _PARAMS[kind]
        tensors.update(data)
        return {"kind": kind, "data": {"__params__": True}, "meta": plain}
    return {"kind": kind, "data": _encode(data, tensors, "data", 0), "meta": plain}


def _all_arrays(data: Mapping[str, Any]) -> bool:
    return all(isinstance(value, (np.ndarray, np.generic, float, int)) or is_torch(value) for value in data.values())


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _encode(value: Any, tensors: Tensors, where: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise TypeError(f"{where} is nested too deep")
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) or is_torch(value):
        name = f"{_EXTRA}{len(tensors)}"
        tensors[name] = value
        return {"__tensor__": name}
    if isinstance(value, (bytes, bytearray, memoryview)):
        name = f"{_EXTRA}{len(tensors)}"
        tensors[name] = np.frombuffer(bytes(value), np.uint8)
        return {"__bytes__": name}
    if isinstance(value, DXO):
        body = {"kind": value.data_kind, "data": value.data, "meta": value.meta}
        return {"__dxo__": _encode(body, tensors, where, depth + 1)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in _MARKS for key in value):
            made = {key: _encode(item, tensors, f"{where}.{key}", depth + 1) for key, item in value.items()}
            return {"__shareable__": made} if isinstance(value, Shareable) else made
        pairs = [
            [_encode(key, tensors, where, depth + 1), _encode(item, tensors, f"{where}[{key!r}]", depth + 1)]
            for key, item in value.items()
        ]
        return {"__map__": pairs}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        made_list = [_encode(item, tensors, f"{where}[]", depth + 1) for item in items]
        if isinstance(value, tuple):
            return {"__tuple__": made_list}
        return {"__set__": made_list} if isinstance(value, (set, frozenset)) else made_list
    raise TypeError(
        f"{where} is {type(value).__name__}; only arrays, tensors, bytes, numbers, texts, lists and maps travel"
    )


def decode(meta: Mapping[str, Any], source: Path | bytes | None, torch: bool | None = None) -> Shareable:
    """The other way. Arrays are private maps of the file, so what is not touched is not read.

    Args:
        torch: tensors as torch; default: as they were sent, but as numpy arrays where there is no torch.

    Raises:
        ProtocolError: not what `encode` made, nor a model of the Client API.
    """
    file = TensorFile(source) if source is not None else None
    as_torch = meta.get("framework") == "torch" and has_torch() if torch is None else torch

    def get(name: str) -> Any:
        if file is None or name not in file.tensors:
            raise ProtocolError("A message names an array that it does not hold", why=str(name))
        return file.torch(name) if as_torch else file.array(name)

    def params() -> dict[str, Any]:
        names = [name for name in file.tensors if not name.startswith(OPTIMIZER_PREFIX)] if file else []
        return {name: get(name) for name in names}

    tree = meta.get("shareable")
    if tree is None:
        return _from_model(meta, params(), file, get)
    try:
        made = Shareable()
        for key, value in tree.items():
            made[key] = _decode(value, get, params, file, 0)
        return made
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ProtocolError("A message is not a shareable", why=repr(error)) from None


def _decode(value: Any, get: Any, params: Any, file: TensorFile | None, depth: int) -> Any:
    if depth > 4 * _MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_decode(item, get, params, file, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((mark, body),) = value.items()
        if mark == "__params__":
            return params()
        if mark == "__tensor__":
            return get(body)
        if mark == "__bytes__":
            if file is None:
                raise ValueError(body)
            return file.raw(body).tobytes()
        if mark in ("__tuple__", "__set__"):
            items = [_decode(item, get, params, file, depth + 1) for item in body]
            return tuple(items) if mark == "__tuple__" else set(items)
        if mark == "__map__":
            return {
                _decode(key, get, params, file, depth + 1): _decode(item, get, params, file, depth + 1)
                for key, item in body
            }
        if mark == "__dxo__":
            return DXO(body["kind"], *(_decode(body[key], get, params, file, depth + 1) for key in ("data", "meta")))
        if mark == "__shareable__":
            return Shareable({key: _decode(item, get, params, file, depth + 1) for key, item in body.items()})
    return {key: _decode(item, get, params, file, depth + 1) for key, item in value.items()}


def _from_model(meta: Mapping[str, Any], params: dict[str, Any], file: TensorFile | None, get: Any) -> Shareable:
    """What a script with the Client API, or a built-in workflow, has sent."""
    about = dict(meta.get("meta") or {})
    metrics = meta.get("metrics")
    if params:
        kind = DataKind.WEIGHT_DIFF if meta.get("params_type") == "DIFF" else DataKind.WEIGHTS
        if metrics:
            about[MetaKey.INITIAL_METRICS] = dict(metrics)
        made = DXO(kind, params, about).to_shareable()
    elif metrics is not None:
        made = DXO(DataKind.METRICS, dict(metrics), about).to_shareable()
    else:
        made = Shareable()
    extra = [name for name in file.tensors if name.startswith(OPTIMIZER_PREFIX)] if file else []
    if extra:
        made["optimizer_params"] = {name[len(OPTIMIZER_PREFIX) :]: get(name) for name in extra}
    for key, header in (("current_round", "current_round"), ("total_rounds", "num_rounds")):
        if meta.get(key) is not None:
            made.set_header(header, meta[key])
    return made


# --- by itself, as bytes


def to_bytes(shareable: Shareable) -> bytes:
    """One safetensors byte string; the plain part is its metadata."""
    meta, tensors = encode(shareable)
    return dump(*encode_tensors(tensors, {"shareable": json.dumps(meta)}))


def from_bytes(source: Path | bytes) -> Shareable:
    """Raises ProtocolError for what `to_bytes` did not make."""
    with TensorFile(source) as file:
        text = file.metadata.get("shareable")
    try:
        meta = json.loads(text) if text else None
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise ProtocolError("The bytes hold no DXO")
    return decode(meta, source)
