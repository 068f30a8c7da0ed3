"""Optimizers on the server: the mean's difference to the global model is a gradient (with its sign turned).

Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), algorithm 2: with D = mean - x,
m = b1 m + (1 - b1) D; v by the variant; x = x + lr m / (sqrt(v) + tau); v starts at tau^2, there is no bias correction.
SGD with momentum is FedAvgM (Hsu et al. 2019): m = b m + D; x = x + lr m. Tensors that are not floats are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_runtime.models.average import Mean
from fl_runtime.models.blocks import FLOATS, BlockWriter, Share, model_entries
from fl_runtime.models.tensors import Array, TensorFile

Step = Callable[[Array, dict[str, Array]], Array]  # (difference, states to be changed in place) -> change of the model


@dataclass(frozen=True)
class ServerOptimizer:
    """`states` are the tensors it keeps beside the model, with their first value."""

    states: Mapping[str, float]
    step: Step


def sgd(lr: float = 1.0, momentum: float = 0.9) -> ServerOptimizer:
    """FedAvgM; with momentum 0 and lr 1 it is FedAvg."""

    def step(gap: Array, state: dict[str, Array]) -> Array:
        state["m"] *= momentum
        state["m"] += gap
        return lr * state["m"]

    return ServerOptimizer({"m": 0.0}, step)


def _adaptive(lr: float, beta1: float, tau: float, second: Callable[[Array, Array], Array]) -> ServerOptimizer:
    def step(gap: Array, state: dict[str, Array]) -> Array:
        state["m"] *= beta1
        state["m"] += (1 - beta1) * gap
        state["v"][:] = second(state["v"], gap * gap)
        return lr * state["m"] / (np.sqrt(state["v"]) + tau)

    return ServerOptimizer({"m": 0.0, "v": tau * tau}, step)


def adam(lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerOptimizer:
    return _adaptive(lr, beta1, tau, lambda v, square: beta2 * v + (1 - beta2) * square)


def yogi(lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerOptimizer:
    return _adaptive(lr, beta1, tau, lambda v, square: v - (1 - beta2) * square * np.sign(v - square))


def adagrad(lr: float = 0.01, beta1: float = 0.0, tau: float = 1e-3) -> ServerOptimizer:
    return _adaptive(lr, beta1, tau, lambda v, square: v + square)


OPTIMIZERS: dict[str, Callable[..., ServerOptimizer]] = {"sgd": sgd, "adam": adam, "yogi": yogi, "adagrad": adagrad}


def apply(
    optimizer: ServerOptimizer,
    shares: Sequence[Share],
    current: TensorFile,
    states: Mapping[str, TensorFile],
    target: Path,
    new_states: Mapping[str, Path],
) -> None:
    """Write the next model and the next states (float32), block by block. `states` is empty the first time."""
    mean = Mean(shares)
    entries = model_entries(current)
    with ExitStack() as stack:
        out = stack.enter_context(BlockWriter(target, entries))
        floats = model_entries(current, "F32")
        writers = {key: stack.enter_context(BlockWriter(path, floats)) for key, path in new_states.items()}
        for tensor, first, count in out.blocks():
            value = mean.block(tensor.name, first, count)
            if tensor.dtype in FLOATS:
                before = current.flat(tensor.name, first, count).astype(np.float64)
                kept = {
                    key: states[key].flat(tensor.name, first, count).astype(np.float64)
                    if key in states
                    else np.full(count, start)
                    for key, start in optimizer.states.items()
                }
                value = before + optimizer.step(value - before, kept)
                for key, writer in writers.items():
                    writer.put(tensor.name, first, kept[key])
            out.put(tensor.name, first, value)
