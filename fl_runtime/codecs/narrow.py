"""Forms of a flat row of floats that take fewer bytes: halves, and 8 or 4 bits with a scale for each group.

A quantized group stores its smallest value and the step to the next one (float32): x = low + q * step, so that no
value is further off than half a step. Groups lie within the blocks that work is done in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fl_runtime.models.tensors import Array, narrow_bf16, widen_bf16

GROUP8, GROUP4 = 1024, 64  # values that share a scale
HALF_MAX = 65504.0
Entries = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Form:
    """How a row is stored: the parts it takes (by suffix of their name), and both directions for one block.

    `put(values) -> {suffix: bytes}` gets whole groups, except at the row's end; `get(parts, first, count)` gets
    everything.
    """

    parts: Callable[[int], Entries]
    put: Callable[[Array], dict[str, Array]]
    at: Callable[[int], dict[str, int]]  # element -> byte offset in each part
    get: Callable[[Mapping[str, Array], int, int], Array]


def _cast(dtype: str) -> Form:
    def put(values: Array) -> dict[str, Array]:
        wide = values.astype(np.float32, copy=False)
        return {"": narrow_bf16(wide) if dtype == "BF16" else wide.astype(np.float16)}

    def get(parts: Mapping[str, Array], first: int, count: int) -> Array:
        row = parts[""][first : first + count]
        return widen_bf16(row) if dtype == "BF16" else row.astype(np.float32)

    return Form(lambda count: {"": (dtype, (count,))}, put, lambda first: {"": 2 * first}, get)


def _groups(count: int, size: int) -> int:
    return -(-count // size)


def _quantize(values: Array, levels: int, group: int) -> tuple[Array, Array, Array]:
    """(codes, smallest of each group, step of each group)."""
    wide = values.astype(np.float32, copy=False)
    short = -len(wide) % group
    if short:
        wide = np.concatenate([wide, np.full(short, wide[-1], np.float32)])
    rows = wide.reshape(-1, group)
    low, high = rows.min(axis=1), rows.max(axis=1)
    # two float32 of opposite sign may be too far apart for their difference; halves never are
    step = ((high / 2 - low / 2) / np.float32(levels / 2)).astype(np.float32)
    safe = np.where(step > 0, step, np.float32(1))
    scaled = rows - low[:, None]
    scaled /= safe[:, None]
    codes = np.clip(np.rint(scaled, out=scaled), 0, levels, out=scaled).astype(np.uint8)
    return codes.reshape(-1)[: len(values)], low, step


def _widen(codes: Array, low: Array, step: Array, first: int, group: int) -> Array:
    """Codes that begin with element `first` of the row; `low` and `step` are the whole row's."""
    count = len(codes)
    if first % group == 0:
        begin, whole = first // group, count // group
        out = np.empty(count, np.float32)
        rows = out[: whole * group].reshape(whole, group)
        np.multiply(codes[: whole * group].reshape(whole, group), step[begin : begin + whole, None], out=rows)
        rows += low[begin : begin + whole, None]
        if whole * group < count:
            out[whole * group :] = codes[whole * group :] * step[begin + whole] + low[begin + whole]
        return out
    places = np.arange(first, first + count) // group
    return (codes * step[places] + low[places]).astype(np.float32)


def _quantized(levels: int, group: int) -> Form:
    packed = levels == 15

    def parts(count: int) -> Entries:
        size = -(-count // 2) if packed else count
        scales = (_groups(count, group),)
        return {"": ("U8", (size,)), ".low": ("F32", scales), ".step": ("F32", scales)}

    def put(values: Array) -> dict[str, Array]:
        codes, low, step = _quantize(values, levels, group)
        if packed:
            if len(codes) % 2:
                codes = np.append(codes, np.uint8(0))
            codes = codes[::2] | (codes[1::2] << 4)
        return {"": codes, ".low": low, ".step": step}

    def at(first: int) -> dict[str, int]:
        return {"": first // 2 if packed else first, ".low": 4 * (first // group), ".step": 4 * (first // group)}

    def get(stored: Mapping[str, Array], first: int, count: int) -> Array:
        if packed:
            begin = first // 2
            pairs = stored[""][begin : (first + count + 1) // 2]
            both = np.empty(2 * len(pairs), np.uint8)
            both[::2], both[1::2] = pairs & 15, pairs >> 4
            codes = both[first - 2 * begin : first - 2 * begin + count]
        else:
            codes = stored[""][first : first + count]
        return _widen(codes, stored[".low"], stored[".step"], first, group)

    return Form(parts, put, at, get)


FORMS: dict[str, Form] = {
    "fp16": _cast("F16"),
    "bf16": _cast("BF16"),
    "q8": _quantized(255, GROUP8),
    "q4": _quantized(15, GROUP4),
}
