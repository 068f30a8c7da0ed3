"""Aggregation that a few wrong sites can't spoil: coordinate-wise median and trimmed mean, and Krum.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (ICML 2018); Blanchard et al.,
"Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (NeurIPS 2017). Sites' weights play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fl_runtime.models.blocks import BLOCK, FLOATS, BlockWriter, Share, in_order, model_entries
from fl_runtime.models.tensors import Array, Tensor

_STACKED = 4 * BLOCK  # elements of all sites together in each thread: 16 MiB of float64
_LEAST = 1024  # elements of each site: above 2048 sites memory grows with their number, by 8 KiB each


def _size(shares: Sequence[Share]) -> int:
    """Elements of a block of one site."""
    return max(_LEAST, min(BLOCK, _STACKED // len(shares)))


def _stack(shares: Sequence[Share], name: str, first: int, count: int) -> Array:
    stack = np.empty((len(shares), count))
    for row, share in zip(stack, shares, strict=True):
        row[:] = share.block(name, first, count)
    return stack


def median(shares: Sequence[Share], target: Path) -> None:
    """The median of each coordinate (the mean of the middle two when the sites are even in number), by partition."""
    ordered = in_order(shares)
    middle = len(ordered) // 2
    kth = [middle] if len(ordered) % 2 else [middle - 1, middle]

    def make(tensor: Tensor, first: int, count: int) -> Array:
        stack = _stack(ordered, tensor.name, first, count)
        stack.partition(kth, axis=0)
        return _mean(stack[kth])

    with BlockWriter(target, model_entries(ordered[0].base or ordered[0].model)) as out:
        out.fill(make, size=_size(ordered))


def trimmed_mean(shares: Sequence[Share], target: Path, trim: float = 0.1) -> None:
    """The mean of each coordinate without its lowest and highest `trim` share of the sites (rounded down, at least one
    site is left).

    Raises:
        ValueError: `trim` is not in [0, 0.5).
    """
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim must be at least 0 and under 0.5, not {trim}")
    ordered = in_order(shares)
    cut = int(trim * len(ordered))
    kth = [cut, len(ordered) - cut - 1]

    def make(tensor: Tensor, first: int, count: int) -> Array:
        stack = _stack(ordered, tensor.name, first, count)
        if cut:
            stack.partition(kth, axis=0)
        return _mean(stack[cut : len(ordered) - cut])

    with BlockWriter(target, model_entries(ordered[0].base or ordered[0].model)) as out:
        out.fill(make, size=_size(ordered))


def _mean(stack: Array) -> Array:
    mean: Array = stack.mean(axis=0)
    return mean


def krum_choice(shares: Sequence[Share], byzantine: int, keep: int = 1) -> list[Share]:
    """The `keep` shares (multi-Krum: more than one) with the least sum of squared distances to their n - f - 2 nearest.

    Raises:
        ValueError: fewer than f + 3 sites.
    """
    ordered = in_order(shares)
    count = len(ordered)
    near = count - byzantine - 2
    if near < 1:
        raise ValueError(f"Krum against {byzantine} wrong sites needs at least {byzantine + 3} results, not {count}")
    distances = np.zeros((count, count))
    template = ordered[0].base or ordered[0].model
    for name, tensor in template.tensors.items():
        if name not in model_entries(template) or tensor.dtype not in FLOATS:
            continue
        step = _size(ordered)
        for first in range(0, tensor.count, step):
            stack = _stack(ordered, name, first, min(step, tensor.count - first))
            for one in range(count):
                for other in range(one + 1, count):
                    gap = stack[one] - stack[other]
                    distances[one, other] += float(gap @ gap)
    distances += distances.T
    scores = [np.sort(np.delete(distances[index], index))[:near].sum() for index in range(count)]
    best = sorted(range(count), key=lambda index: (scores[index], ordered[index].site))[:keep]
    return [ordered[index] for index in sorted(best)]
