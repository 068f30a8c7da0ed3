"""Clipping: of the whole update's norm (two passes), and of each value."""

from __future__ import annotations

import math

import numpy as np

from fl_runtime.filters.base import BlockFilter, FilterError, Work
from fl_runtime.filters.views import Mapped, View, float_names, grid
from fl_runtime.models.tensors import Array


def norm(view: View, power: int = 2) -> float:
    """The L1 or L2 norm over all tensors of floats, summed in float64.

    Raises:
        FilterError: NaN or infinity: there is no norm, and nothing may leave.
    """
    total = 0.0
    for name in float_names(view):
        for first, count in grid(view.tensors[name]):
            values = view.flat(name, first, count).astype(np.float64)
            total += float(np.abs(values).sum() if power == 1 else np.dot(values, values))
            view.release(name, first, count)
    if not math.isfinite(total):
        raise FilterError("The model holds NaN or infinity")
    return total if power == 1 else math.sqrt(total)


class ClipNorm(BlockFilter):
    """The update is scaled down so that its L2 norm is at most `max_norm`."""

    of_update = True

    def __init__(self, max_norm: float) -> None:
        if not 0 < max_norm < math.inf:
            raise FilterError("max_norm must be a positive number", why=f"it is {max_norm}")
        self._limit = max_norm

    def change(self, view: View, work: Work) -> View:
        length = norm(view)
        if length <= self._limit:
            return view
        factor = self._limit / length

        def scale(_: str, __: int, values: Array) -> Array:
            values *= factor
            return values

        return Mapped(view, scale)


class ClipValue(BlockFilter):
    """Each value of the update is kept within [-limit, limit]."""

    of_update = True

    def __init__(self, limit: float) -> None:
        if not limit > 0:
            raise FilterError("limit must be a positive number", why=f"it is {limit}")
        self._limit = limit

    def change(self, view: View, work: Work) -> View:
        return Mapped(view, lambda _, __, values: np.clip(values, -self._limit, self._limit, out=values))
