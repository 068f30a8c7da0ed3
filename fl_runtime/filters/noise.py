"""Gaussian noise, differential privacy by the Gaussian and the Laplace mechanism, and the accountant's line."""

from __future__ import annotations

import math

from fl_runtime.filters.base import BlockFilter, FilterError, Work, withhold
from fl_runtime.filters.clipping import norm
from fl_runtime.filters.order import percentile
from fl_runtime.filters.views import Mapped, View, float_names
from fl_runtime.models.tensors import Array


def _noisy(view: View, work: Work, draw: str, scale: float, factor: float = 1.0) -> View:
    order = {name: number for number, name in enumerate(sorted(view.tensors))}
    stream = work.stream()

    def change(name: str, first: int, values: Array) -> Array:
        values *= factor
        values += getattr(stream(order[name], first), draw)(0.0, scale, len(values))
        return values

    return Mapped(view, change)


class GaussianNoise(BlockFilter):
    """Noise of a fixed `sigma`, or of `sigma0` times the given percentile of all magnitudes (two passes)."""

    def __init__(self, sigma: float | None = None, sigma0: float = 0.1, max_percentile: float = 95.0) -> None:
        self._sigma, self._sigma0, self._percentile = sigma, sigma0, max_percentile

    def change(self, view: View, work: Work) -> View:
        sigma = self._sigma if self._sigma is not None else self._sigma0 * percentile(view, self._percentile)
        return _noisy(view, work, "normal", sigma)


class _Mechanism(BlockFilter):
    of_update = True
    draw = ""

    def __init__(self, clip: float) -> None:
        if not 0 < clip < math.inf:
            raise FilterError("clip must be a positive number", why=f"it is {clip}")
        self._clip = clip

    def _release(self, view: View, work: Work, power: int, scale: float) -> View:
        """Clip the whole update in its norm, add noise to each element; what is no float does not leave."""
        length = norm(view, power)
        factor = min(1.0, self._clip / length) if length > 0 else 1.0
        others = set(view.tensors) - set(float_names(view))
        return withhold(_noisy(view, work, self.draw, scale, factor), work, others)


class GaussianMechanism(_Mechanism):
    """The update's L2 norm is clipped to `clip`, and noise of `noise_multiplier` x `clip` added to each element.

    Dwork, Roth, "The Algorithmic Foundations of Differential Privacy" (2014); Mironov, "Renyi Differential Privacy"
    (CSF 2017). The budget so far (for `delta`, all releases of the site in this job, neighbours differ in the
    whole update of one round's site) goes along as `meta["privacy"]`.
    """

    draw = "normal"

    def __init__(self, clip: float, noise_multiplier: float, delta: float = 1e-5) -> None:
        super().__init__(clip)
        if noise_multiplier <= 0 or not 0 < delta < 1:
            raise FilterError("noise_multiplier must be positive, and delta between 0 and 1")
        self._multiplier, self._delta = noise_multiplier, delta

    def change(self, view: View, work: Work) -> View:
        work.note(
            "privacy",
            {
                "mechanism": "gaussian",
                "clip": self._clip,
                "noise_multiplier": self._multiplier,
                "releases": work.releases,
                "epsilon": gaussian_epsilon(self._multiplier, work.releases, self._delta),
                "delta": self._delta,
            },
        )
        return self._release(view, work, 2, self._multiplier * self._clip)


def gaussian_epsilon(multiplier: float, releases: int, delta: float) -> float:
    """Epsilon of n Gaussian releases whose sensitivity is 2 x clip (one update replaced by another).

    Renyi divergence of order a is n a (2/z)^2 / 2; the best order is put into epsilon = rdp + log(1/delta) / (a - 1).
    """
    rho = releases * (2.0 / multiplier) ** 2 / 2
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


class LaplaceMechanism(_Mechanism):
    """The update's L1 norm is clipped to `clip`; Laplace noise makes each release `epsilon`-private by itself."""

    draw = "laplace"

    def __init__(self, clip: float, epsilon: float) -> None:
        super().__init__(clip)
        if epsilon <= 0:
            raise FilterError("epsilon must be positive", why=f"it is {epsilon}")
        self._epsilon = epsilon

    def change(self, view: View, work: Work) -> View:
        spent = {"mechanism": "laplace", "clip": self._clip, "releases": work.releases}
        work.note("privacy", {**spent, "epsilon": self._epsilon * work.releases, "delta": 0.0})
        return self._release(view, work, 1, 2.0 * self._clip / self._epsilon)
