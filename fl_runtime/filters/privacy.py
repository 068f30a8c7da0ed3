"""Sharing a part of the update only: the largest percentile, and the sparse vector technique.

Shokri, Shmatikov, "Privacy-Preserving Deep Learning" (CCS 2015); Lyu, Su, Li, "Understanding the Sparse Vector
Technique for Differential Privacy" (VLDB 2017); Li et al., "Privacy-preserving Federated Brain Tumour Segmentation"
(MLMI 2019). Both work on the update per step: divided by NUM_STEPS_CURRENT_ROUND, multiplied again at the end.
"""

from __future__ import annotations

import math
import tempfile

import numpy as np

from fl_runtime.filters.base import BlockFilter, FilterError, Work, withhold
from fl_runtime.filters.order import percentile as percentile_of
from fl_runtime.filters.views import Mapped, View, float_names, grid
from fl_runtime.models.blocks import BLOCK
from fl_runtime.models.tensors import Array, allocate

_Blocks = list[tuple[int, str, int, int]]  # (number of the tensor, name, first element, count)


class Percentile(BlockFilter):
    """Values below the `percentile` of all magnitudes are zeroed, the others clipped to [-gamma, gamma]. Two passes."""

    of_update = True

    def __init__(self, percentile: float = 10.0, gamma: float = 0.01) -> None:
        if gamma <= 0:
            raise FilterError("gamma must be positive", why=f"it is {gamma}")
        self._share, self._gamma = percentile, gamma

    def change(self, view: View, work: Work) -> View:
        steps, gamma = work.steps, self._gamma
        least = percentile_of(view, self._share)  # of the undivided values: the order is the same

        def cut(name: str, first: int, values: Array) -> Array:
            values[np.abs(values) < least] = 0.0
            return np.clip(values, -gamma * steps, gamma * steps, out=values)

        return Mapped(view, cut)


class SparseVector(BlockFilter):
    """A `fraction` of the values is released, with Laplace noise, clipped to [-gamma, gamma]; the others are zero.

    Which ones: those whose clipped, noisy magnitude is above the noisy threshold `tau`; asked again for the rest until
    there are enough, then as many as wanted are drawn from them, without replacement. `epsilon` pays for the
    threshold, (2 n)^(2/3) times as much for the n answers, `noise_var` for the released values.
    Which values have passed is one bit each, in a file; all else is a block.
    """

    of_update = True
    _ROUNDS = 1000

    def __init__(
        self,
        fraction: float = 0.1,
        epsilon: float = 0.1,
        noise_var: float = 0.1,
        gamma: float = 1e-5,
        tau: float = 1e-6,
    ) -> None:
        if not 0 < fraction <= 1 or min(epsilon, noise_var, gamma) <= 0:
            raise FilterError("fraction must lie in (0, 1]; epsilon, noise_var and gamma must be positive")
        self._fraction, self._epsilon, self._released = fraction, epsilon, noise_var
        self._gamma, self._tau = gamma, tau

    def change(self, view: View, work: Work) -> View:
        blocks = [
            (number, name, first, count)
            for number, name in enumerate(float_names(view))
            for first, count in grid(view.tensors[name])
        ]
        size = sum(count for _, _, _, count in blocks)
        wanted = min(math.ceil(size * self._fraction), size)
        passed = _Bits(work, len(blocks))
        counts = self._ask(view, work, blocks, wanted, passed)
        chosen = self._choose(work, blocks, counts, wanted, passed)
        places = {(name, first): place for place, (_, name, first, _) in enumerate(blocks)}
        numbers = {name: number for number, name, _, _ in blocks}
        steps, gamma, scale = work.steps, self._gamma, self._gamma * 2.0 / self._released
        noise = work.stream(1)
        epsilon = self._epsilon * (1 + (2.0 * wanted) ** (2 / 3)) + self._released
        work.note("privacy", {"mechanism": "svt", "epsilon": epsilon, "released": wanted, "of": size, "delta": 0.0})

        def release(name: str, first: int, values: Array) -> Array:
            mask = chosen.get(places[name, first], len(values))
            drawn = noise(numbers[name], first).laplace(0.0, scale, len(values))
            values /= steps
            values += drawn
            np.clip(values, -gamma, gamma, out=values)
            values[~mask] = 0.0
            values *= steps
            return values

        return withhold(Mapped(view, release), work, set(view.tensors) - set(float_names(view)))

    def _ask(self, view: View, work: Work, blocks: _Blocks, wanted: int, passed: _Bits) -> Array:
        """Mark values until enough have passed; how many in each block."""
        counts = np.zeros(len(blocks), np.int64)
        steps, gamma = work.steps, self._gamma
        threshold = self._tau + work.stream(2)(0, 0).laplace(0.0, gamma * 2.0 / self._epsilon)
        scale = gamma * 4.0 * wanted / ((2.0 * wanted) ** (2 / 3) * self._epsilon) if wanted else 0.0
        for attempt in range(self._ROUNDS):
            if counts.sum() >= wanted:
                return counts
            asked = work.stream(3)
            for place, (number, name, first, count) in enumerate(blocks):
                rng = asked(number + (attempt << 32), first)
                values = np.abs(view.flat(name, first, count).astype(np.float64)) / steps
                view.release(name, first, count)
                if not np.isfinite(values).all():
                    raise FilterError("The model holds NaN or infinity")
                above = np.minimum(values, gamma) + rng.laplace(0.0, scale, count) >= threshold
                mask = passed.get(place, count) | above
                passed.set(place, mask)
                counts[place] = mask.sum()
        raise FilterError("Too few values pass the threshold", why=f"{counts.sum()} of {wanted}; lower tau")

    def _choose(self, work: Work, blocks: _Blocks, counts: Array, wanted: int, passed: _Bits) -> _Bits:
        """Exactly `wanted` of those that passed, each as likely: how many of each block, then which."""
        draw, left, need = work.stream(4), int(counts.sum()), wanted
        for place, (number, _, first, count) in enumerate(blocks):
            have, rng = int(counts[place]), draw(number, first)
            take = _hypergeometric(rng, have, left - have, need)
            mask = passed.get(place, count)
            keep = np.zeros(count, np.bool_)
            keep[rng.choice(np.flatnonzero(mask), take, replace=False)] = True
            passed.set(place, keep)
            left, need = left - have, need - take
        return passed


def _hypergeometric(rng: np.random.Generator, good: int, bad: int, drawn: int) -> int:
    """How many of `drawn` are among the `good`; numpy's own is limited to 10^9, so larger ones go in halves."""
    limit = 10**9
    if good < limit and bad < limit:
        return int(rng.hypergeometric(good, bad, drawn)) if drawn else 0
    # so large that the binomial with the same mean is the same for every purpose here
    return min(good, max(drawn - bad, int(rng.binomial(drawn, good / (good + bad)))))


class _Bits:
    """One bit for each value of each block, in a file without a name."""

    def __init__(self, work: Work, blocks: int) -> None:
        self._row = BLOCK // 8
        file = tempfile.TemporaryFile(dir=work.scratch)  # noqa: SIM115 - the map keeps it
        allocate(file.fileno(), blocks * self._row)
        self._map = np.memmap(file, np.uint8, "r+", shape=(max(1, blocks * self._row),))

    def get(self, place: int, count: int) -> Array:
        packed = self._map[place * self._row : place * self._row + (count + 7) // 8]
        return np.unpackbits(packed, count=count).view(np.bool_)

    def set(self, place: int, mask: Array) -> None:
        packed = np.packbits(mask)
        self._map[place * self._row : place * self._row + len(packed)] = packed
