"""Order statistics of all magnitudes of a model, exact, in a few passes and a few megabytes.

The bits of a float64 that is not negative are ordered as the number is, so 16 bits at a time decide (radix selection);
as soon as few candidates are left they are collected and parted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fl_runtime.filters.base import FilterError
from fl_runtime.filters.views import View, float_names, grid
from fl_runtime.models.tensors import Array

FEW = 1 << 20  # candidates that may be collected: 8 MiB


def magnitudes(view: View, names: Sequence[str]) -> Iterator[Array]:
    """Absolute values, float64, block after block."""
    for name in names:
        for first, count in grid(view.tensors[name]):
            yield np.abs(view.flat(name, first, count).astype(np.float64))
            view.release(name, first, count)


def kth(view: View, rank: int, names: Sequence[str] | None = None) -> float:
    """The magnitude with `rank` smaller or equal ones before it (0 = the smallest).

    Raises:
        FilterError: the tensors hold NaN.
    """
    names = float_names(view) if names is None else names
    low, shift = 0, 64  # candidates have the bits of `low` above `shift`
    while True:
        shift -= 16
        counts = np.zeros(1 << 16, np.int64)
        for values in magnitudes(view, names):
            bits = values.view(np.uint64)
            if np.isnan(values).any():
                raise FilterError("The model holds NaN")
            if shift < 48:
                bits = bits[(bits >> np.uint64(shift + 16)) == np.uint64(low >> (shift + 16))]
            counts += np.bincount(((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[digit - 1]) if digit else 0
        low |= digit << shift
        if shift == 0:
            return float(np.array([low], np.uint64).view(np.float64)[0])
        if counts[digit] <= FEW:
            found = []
            for values in magnitudes(view, names):
                bits = values.view(np.uint64)
                found.append(values[(bits >> np.uint64(shift)) == np.uint64(low >> shift)])
            return float(np.partition(np.concatenate(found), rank)[rank])


def percentile(view: View, share: float, names: Sequence[str] | None = None) -> float:
    """As numpy's percentile (linear) of all magnitudes; `share` in 0 to 100.

    Raises:
        FilterError: no values, or NaN among them.
    """
    names = float_names(view) if names is None else names
    size = sum(view.tensors[name].count for name in names)
    if size == 0:
        raise FilterError("There is no tensor of floats to take a percentile of")
    if not 0 <= share <= 100:
        raise FilterError("A percentile must lie between 0 and 100", why=f"it is {share}")
    place = share / 100 * (size - 1)
    rank = math.floor(place)
    lower = kth(view, rank, names)
    if place == rank:
        return lower
    upto, above = 0, math.inf
    for values in magnitudes(view, names):
        greater = values > lower
        upto += len(values) - int(greater.sum())
        above = min(above, float(values.min(initial=math.inf, where=greater)))
    upper = lower if upto > rank + 1 else above
    return lower + (upper - lower) * (place - rank)
