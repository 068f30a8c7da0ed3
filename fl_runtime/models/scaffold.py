"""SCAFFOLD's step on the server, block by block.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1.

    x <- x + lr * mean(y_i - x)        c <- c + |S| / N * mean(delta c_i)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fl_runtime.models.average import Mean
from fl_runtime.models.blocks import FLOATS, BlockWriter, Share, model_entries
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import TensorFile

CONTROL = OPTIMIZER_PREFIX + "c."
DELTA = OPTIMIZER_PREFIX + "c_delta."


def step(
    shares: Sequence[Share],
    current: TensorFile,
    control: TensorFile | None,
    target: Path,
    new_control: Path,
    lr: float,
    part: float,
) -> None:
    """Write the next model and the next control (float32); all sites weigh the same.

    Args:
        control: that of the round before; None = zeros.
        part: the share of all sites that took part in this round.
    """
    equal = [Share(share.site, 1.0, share.model, share.base) for share in shares]
    mean, delta = Mean(equal), Mean([Share(share.site, 1.0, share.model) for share in shares])
    with (
        BlockWriter(target, model_entries(current)) as out,
        BlockWriter(new_control, model_entries(current, "F32")) as kept,
    ):
        for tensor, first, count in out.blocks():
            old = current.flat(tensor.name, first, count).astype(np.float64)
            new = mean.block(tensor.name, first, count)
            out.put(tensor.name, first, old + lr * (new - old) if tensor.dtype in FLOATS else new)
            if tensor.dtype in FLOATS:
                change = part * delta.block(DELTA + tensor.name, first, count)
                if control is not None:
                    change = change + control.flat(tensor.name, first, count)
                kept.put(tensor.name, first, change)
