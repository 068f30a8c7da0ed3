"""Filters without statistics: which variables, how exact, differences or weights, and what plain data goes along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_runtime.filters.base import BlockFilter, FilterError, Work, matcher, withhold
from fl_runtime.filters.views import Mapped, Selected, View, difference, float_names, grid, shared, total
from fl_runtime.models.tensors import Array


class Exclude(BlockFilter):
    """What the matching variables learned stays here: the server gets back its own values (zeros in a difference).

    With `remove` they are not there at all; an algorithm that expects the whole model refuses such a result.
    """

    def __init__(self, variables: Sequence[str], remove: bool = False) -> None:
        self._hit, self._remove = matcher(variables), remove

    def names(self, view: View) -> set[str]:
        return {name for name in view.tensors if self._hit(name)}

    def change(self, view: View, work: Work) -> View:
        hit = self.names(view)
        if self._remove:
            return Selected(view, set(view.tensors) - hit)
        return withhold(view, work, hit)


class Include(Exclude):
    """Only the matching variables; the others as with `exclude`."""

    def names(self, view: View) -> set[str]:
        return {name for name in view.tensors if not self._hit(name)}


class Round(BlockFilter):
    """Values rounded to `decimals`, or to `bits` of their significand."""

    def __init__(self, decimals: int | None = None, bits: int | None = None) -> None:
        if (decimals is None) == (bits is None):
            raise FilterError("Rounding takes either decimals or bits")
        self._decimals, self._bits = decimals, bits

    def change(self, view: View, work: Work) -> View:
        def cut(_: str, __: int, values: Array) -> Array:
            if self._decimals is not None:
                return np.round(values, self._decimals, out=values)
            significand, exponent = np.frexp(values)
            scale = 2.0 ** int(self._bits or 1)
            return np.ldexp(np.round(significand * scale) / scale, exponent)

        return Mapped(view, cut)


class ToDiff(BlockFilter):
    """Full weights become their difference to the received model."""

    def change(self, view: View, work: Work) -> View:
        if work.is_diff:
            return view
        if work.base is None:
            raise FilterError("Weights can't become a difference", why="the script received no model in this task")
        lacking = set(float_names(view)) - shared(view, work.base)
        if lacking:
            raise FilterError("Weights can't become a difference", why=f"the received model lacks {min(lacking)}")
        work.meta["params_type"] = "DIFF"
        return difference(view, work.base)


class ToFull(BlockFilter):
    """A difference becomes full weights again."""

    def change(self, view: View, work: Work) -> View:
        if not work.is_diff:
            return view
        if work.base is None:
            raise FilterError("A difference can't become weights", why="the script received no model in this task")
        work.meta["params_type"] = "FULL"
        return total(view, work.base)


class Statistics(BlockFilter):
    """No tensor leaves, only figures of each: `meta["statistics"]`."""

    def change(self, view: View, work: Work) -> View:
        for name in sorted(view.tensors):
            count, mean, spread, low, high, square = 0, 0.0, 0.0, np.inf, -np.inf, 0.0
            for first, size in grid(view.tensors[name]):
                values = view.flat(name, first, size).astype(np.float64)
                view.release(name, first, size)
                gap = float(values.mean()) - mean  # Chan et al.: sums of squares by parts
                spread += float(((values - values.mean()) ** 2).sum()) + gap * gap * count * size / (count + size)
                count += size
                mean += gap * size / count
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                square += float(np.dot(values, values))
            figures = {"mean": mean, "std": float(np.sqrt(spread / count)), "min": low, "max": high} if count else {}
            work.note(
                "statistics",
                {"tensor": name, "shape": list(view.tensors[name].shape), **figures, "norm": float(np.sqrt(square))},
            )
        return Selected(view, set())


class Meta(BlockFilter):
    """Only these metrics, and these keys of `meta`, go along. Without the steps a result's weight is 1."""

    def __init__(self, metrics: Sequence[str] = (), meta: Sequence[str] = ("NUM_STEPS_CURRENT_ROUND",)) -> None:
        self._metrics, self._meta = matcher(metrics), matcher(meta)

    def change(self, view: View, work: Work) -> View:
        for key, keep in (("metrics", self._metrics), ("meta", self._meta)):
            work.meta[key] = {name: value for name, value in (work.meta.get(key) or {}).items() if keep(name)}
        return view
