"""SCAFFOLD: control variates correct the drift of the sites.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1. A site
gets the server's control in `model.optimizer_params["c.NAME"]` (zeros in the first round are not sent), keeps its own,
trains with gradient - c_i + c, and sends its weights with its control's change in `optimizer_params["c_delta.NAME"]`.

    x <- x + lr * mean(y_i - x)        c <- c + |S| / N * mean(delta c_i)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_runtime.errors import FlError
from fl_runtime.models.average import Mean
from fl_runtime.models.blocks import FLOATS, BlockWriter, Share, model_entries
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import TensorFile
from fl_runtime.workflow.base import Model, Result
from fl_runtime.workflow.fedavg import FedAvg

CONTROL = OPTIMIZER_PREFIX + "c."
DELTA = OPTIMIZER_PREFIX + "c_delta."


class Scaffold(FedAvg):
    """Setting: `lr` (1.0), the server's step. All sites weigh the same."""

    def train(self) -> list[Result]:
        sent = self.model
        if self.model is not None and "c" in self.tensors:
            sent = self._with_control(self.model, self.tensors["c"])
        return self.broadcast_and_wait("train", sent, targets=self.sample())

    def check(self, result: Result, model: TensorFile) -> str | None:
        for name, tensor in model.tensors.items():
            if name.startswith(OPTIMIZER_PREFIX) or tensor.dtype not in FLOATS:
                continue
            delta = model.tensors.get(DELTA + name)
            if delta is None or delta.shape != tensor.shape:
                return f"it lacks the control's change c_delta.{name}"
            if not np.isfinite(model.flat(DELTA + name)).all():
                return f"the control's change of {name!r} holds NaN or infinity"
        return None

    def _with_control(self, model: Model, control: Model) -> Model:
        """The model and the control in one file, as the sites get it."""
        weights, controls = model.open(), control.open()
        entries = model_entries(weights)
        entries.update({CONTROL + name: entry for name, entry in model_entries(controls).items()})
        path = self.new_file(0)
        with BlockWriter(path, entries) as out:
            for tensor, first, count in out.blocks():
                from_control = tensor.name.startswith(CONTROL)
                source = controls if from_control else weights
                out.put(tensor.name, first, source.flat(tensor.name.removeprefix(CONTROL), first, count))
        return self.keep(path)

    def aggregate(self, results: Sequence[Result]) -> Model:
        if self.model is None:
            raise FlError("SCAFFOLD needs a first model", next_step="set workflow.model in job.yml")
        current = self.model.open()
        shares = [Share(share.site, 1.0, share.model, share.base) for share in self.shares(results)]
        mean, part = Mean(shares), len(results) / max(len(self.sites()), len(results))
        rate = float(self.settings.get("lr", 1.0))
        before = self.tensors["c"].open() if "c" in self.tensors else None
        path, control = self.new_file(results[0].size), self.new_file(results[0].size)
        delta_mean = Mean([Share(share.site, 1.0, share.model) for share in shares])
        with (
            BlockWriter(path, model_entries(current)) as out,
            BlockWriter(control, model_entries(current, "F32")) as kept,
        ):
            for tensor, first, count in out.blocks():
                old = current.flat(tensor.name, first, count).astype(np.float64)
                new = mean.block(tensor.name, first, count)
                out.put(tensor.name, first, old + rate * (new - old) if tensor.dtype in FLOATS else new)
                if tensor.dtype in FLOATS:
                    change = part * delta_mean.block(DELTA + tensor.name, first, count)
                    if before is not None:
                        change = change + before.flat(tensor.name, first, count)
                    kept.put(tensor.name, first, change)
        self.tensors["c"] = self.keep(control)
        return self.keep(path)
