"""The demo's data: scikit-learn's bundled digits, a held-out set, and a part for each site.

The parts are drawn by a Dirichlet distribution over the sites for each class (Hsu, Qi and Brown 2019,
"Measuring the Effects of Non-Identical Data Distribution"): the smaller alpha, the less alike the sites are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ALPHA = 0.3
SEED = 7
#: Share of the images that no site sees and every model is measured on.
HELD_OUT = 0.25
_FEWEST_ROWS = 60

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Images x (n, 64) with pixels in 0..1, labels y (n,)."""

    x: Floats
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def save(self, path: Path) -> None:
        """Writes `x` and `y` as one .npz file."""
        with path.open("wb") as file:
            np.savez(file, x=self.x, y=self.y)

    def per_class(self) -> list[int]:
        """How many rows of each of the ten classes."""
        return [int(count) for count in np.bincount(self.y, minlength=10)]


def load() -> Rows:
    """The 1797 digits of 8 x 8 pixels that scikit-learn brings along."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Rows((digits.data / 16.0).astype(np.float32), digits.target.astype(np.int64))


def split(rows: Rows, sites: Sequence[str], alpha: float = ALPHA, seed: int = SEED) -> tuple[dict[str, Rows], Rows]:
    """A part for each site, and the held-out set. Every image is in exactly one of them.

    Drawn again until each site has enough rows to train on at all.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    held_out, rest = np.split(order, [int(len(rows) * HELD_OUT)])
    while True:
        parts: list[list[npt.NDArray[np.intp]]] = [[] for _ in sites]
        for label in range(10):
            of_class = rest[rows.y[rest] == label]
            shares = rng.dirichlet([alpha] * len(sites))
            cuts = (np.cumsum(shares)[:-1] * len(of_class)).round().astype(int)
            for part, chosen in zip(parts, np.split(of_class, cuts), strict=True):
                part.append(chosen)
        indices = [np.concatenate(part) for part in parts]
        if min(map(len, indices)) >= _FEWEST_ROWS:
            break
    taken = {site: Rows(rows.x[i], rows.y[i]) for site, i in zip(sites, indices, strict=True)}
    return taken, Rows(rows.x[held_out], rows.y[held_out])
