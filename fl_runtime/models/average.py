"""The weighted mean of models, block by block, in site-name order: the same bits whatever the order of arrival.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017), algorithm 1:
w = sum(n_k * w_k) / sum(n_k). Sums are in float64; one block of accumulator is all the memory it takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import Array, TensorFile, layout, narrow_bf16, open_over

_BLOCK = 1 << 19  # elements: 4 MiB of float64


@dataclass(frozen=True)
class Share:
    """One site's result and its weight (steps or samples)."""

    site: str
    weight: float
    model: TensorFile


def average(
    shares: Sequence[Share], target: Path, base: TensorFile | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weighted mean to `target` (safetensors).

    Args:
        shares: at least one; all with the same tensors.
        base: the results are differences to this model (WEIGHT_DIFF): the mean is added to it.

    Raises:
        ValueError: no share, or no positive weight.
    """
    ordered = sorted(shares, key=lambda share: share.site)
    total = sum(share.weight for share in ordered)
    if not ordered or not total > 0:
        raise ValueError("nothing to average: no result with a positive weight")
    factors = [share.weight / total for share in ordered]
    first = ordered[0].model
    template = base if base is not None else first
    entries = {
        name: (tensor.dtype, tensor.shape)
        for name, tensor in template.tensors.items()
        if not name.startswith(OPTIMIZER_PREFIX)
    }
    plan = layout(entries, metadata)
    sum_ = np.empty(_BLOCK, np.float64)
    term = np.empty(_BLOCK, np.float64)
    with open_over(target) as out:
        out.truncate(plan.size)
        out.write(plan.header)
        for name, tensor in plan.tensors.items():
            size = tensor.length // max(tensor.count, 1)
            for start in range(0, tensor.count, _BLOCK):
                count = min(_BLOCK, tensor.count - start)
                acc, tmp = sum_[:count], term[:count]
                acc.fill(0.0)
                for factor, share in zip(factors, ordered, strict=True):
                    np.multiply(share.model.flat(name, start, count), factor, out=tmp, dtype=np.float64)
                    acc += tmp
                if base is not None:
                    acc += base.flat(name, start, count)
                _pwrite(out.fileno(), _as(acc, tensor.dtype), tensor.start + start * size)


def _as(values: Array, dtype: str) -> Array:
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    if dtype == "BF16":
        return narrow_bf16(values.astype(np.float32))
    if dtype in kinds:
        return values.astype(kinds[dtype], copy=False)
    if dtype == "BOOL":
        return (values >= 0.5).astype(np.bool_)
    names = {"U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}
    return np.rint(values).astype(names[dtype])


def _pwrite(fd: int, values: Array, offset: int) -> None:
    view = values.view(np.uint8).data
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done
