"""Filters without statistics: which variables, how exact, differences or weights, and what plain data goes along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_runtime.filters.base import BlockFilter, FilterError, Work, matcher, withhold
from fl_runtime.filters.views import Mapped, Selected, View, grid, is_float
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import _NUMPY, Array, Tensor

_SIGNED = ("I8", "I16", "I32", "I64")


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
    """Full weights become their difference to the received model, counts (signed whole numbers) as well as floats.

    For the server adds the model it sent to each tensor of a difference. No difference can be written as an unsigned
    number or as a flag: what such tensors hold stays here, and zeros leave. What belongs to an optimizer passes.
    """

    def change(self, view: View, work: Work) -> View:
        if work.is_diff:
            return view
        base = work.base
        if base is None:
            raise FilterError("Weights can't become a difference", why="the script received no model in this task")
        both = _in_both(view, base)
        lacking = {name for name in view.tensors if not name.startswith(OPTIMIZER_PREFIX)} - both
        if lacking:
            tensor = view.tensors[min(lacking)]
            why = f"the received model lacks {tensor.name} as {tensor.dtype} of the shape {list(tensor.shape)}"
            raise FilterError("Weights can't become a difference", why=why)
        work.meta["params_type"] = "DIFF"

        def gap(name: str, first: int, values: Array) -> Array:
            values -= base.flat(name, first, len(values))
            dtype = view.tensors[name].dtype
            if dtype in _SIGNED and len(values):
                least = float(np.iinfo(_NUMPY[dtype]).min)
                if values.min() < least or values.max() >= -least:  # a clipped one would be a wrong number
                    raise FilterError("Weights can't become a difference", why=f"that of {name} does not fit {dtype}")
            return values

        signed = {name for name in both if _kind(view.tensors[name]) in ("float", "signed")}
        return withhold(Mapped(view, gap, signed), work, both - signed)


class ToFull(BlockFilter):
    """A difference becomes full weights again: the received model is added to each tensor, as the server does it."""

    def change(self, view: View, work: Work) -> View:
        if not work.is_diff:
            return view
        base = work.base
        if base is None:
            raise FilterError("A difference can't become weights", why="the script received no model in this task")
        work.meta["params_type"] = "FULL"
        return Mapped(
            view, lambda name, first, values: values + base.flat(name, first, len(values)), _in_both(view, base)
        )


def _kind(tensor: Tensor) -> str:
    return "float" if is_float(tensor) else "signed" if tensor.dtype in _SIGNED else tensor.dtype


def _in_both(view: View, base: View) -> set[str]:
    """The model's own tensors that both have alike; floats and counts in any precision."""
    return {
        name
        for name, tensor in view.tensors.items()
        if not name.startswith(OPTIMIZER_PREFIX)
        and name in base.tensors
        and base.tensors[name].shape == tensor.shape
        and _kind(base.tensors[name]) == _kind(tensor)
    }


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
