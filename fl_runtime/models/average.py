"""The weighted mean of models, block by block, in site-name order: the same bits whatever the order of arrival.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017), algorithm 1:
w = sum(n_k * w_k) / sum(n_k). Sums are in float64; one block of accumulator is all the memory it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.models.blocks import BLOCK, BlockWriter, Share, in_order, model_entries
from fl_runtime.models.tensors import Array, as_array


class Mean:
    """The weighted mean of some shares, block by block.

    Raises:
        ValueError: no share, or no positive weight.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = in_order(shares)
        total = sum(share.weight for share in self._shares)
        if not self._shares or not total > 0:
            raise ValueError("nothing to average: no result with a positive weight")
        self._factors = [share.weight / total for share in self._shares]
        self._scratch = threading.local()

    def block(self, name: str, first: int, count: int) -> Array:
        """The mean of a block, float64; valid until this thread's next call."""
        if not hasattr(self._scratch, "buffers"):
            self._scratch.buffers = np.empty(BLOCK, np.float64), np.empty(BLOCK, np.float64)
        acc: Array
        term: Array
        acc, term = (buffer[:count] for buffer in self._scratch.buffers)
        for index, (factor, share) in enumerate(zip(self._factors, self._shares, strict=True)):
            into = term if index else acc
            np.copyto(into, share.model.flat(name, first, count))  # widened first: twice as fast as a mixed product
            into *= factor
            if index:
                acc += term
        base = self._shares[0].base
        if base is not None:
            acc += base.flat(name, first, count)
        return acc


def average(shares: Sequence[Share], target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weighted mean to `target` (safetensors). All shares have the same tensors; all or none are differences.

    Raises:
        ValueError: no share, or no positive weight.
    """
    mean = Mean(shares)
    template = shares[0].base or shares[0].model
    with BlockWriter(target, model_entries(template), metadata) as out:
        out.fill(lambda tensor, first, count: mean.block(tensor.name, first, count))


def mean_of(values: Sequence[Any], weights: Sequence[float]) -> Array:
    """The weighted mean of arrays or torch tensors of one shape in memory, as an array in the type of the first one.

    Whole numbers are rounded. Sums are in float64 and in the order of the list. The weights' sum is positive.
    """
    total = sum(weights)
    first = as_array(values[0])
    acc = np.zeros(first.shape, np.float64)
    for weight, value in zip(weights, values, strict=True):
        acc += as_array(value).astype(np.float64) * (weight / total)
    if first.dtype.kind == "b":
        return np.asarray(acc >= 0.5)
    # factors such as 1/3 do not sum up to 1 exactly: the mean of three times 7 is a little less
    return np.asarray(np.rint(acc) if first.dtype.kind in "iu" else acc).astype(first.dtype)
