"""SCAFFOLD: control variates correct the drift of the sites.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1. A site
gets the server's control in `model.optimizer_params["c.NAME"]` (zeros in the first round are not sent), keeps its own,
trains with gradient - c_i + c, and sends its weights with its control's change in `optimizer_params["c_delta.NAME"]`.

    x <- x + lr * mean(y_i - x)        c <- c + |S| / N * mean(delta c_i)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fl_runtime.models.blocks import FLOATS, BlockWriter, model_entries
from fl_runtime.models.check import OPTIMIZER_PREFIX, finite
from fl_runtime.models.scaffold import CONTROL, DELTA
from fl_runtime.models.tensors import TensorFile
from fl_runtime.workflow.base import Model, Result
from fl_runtime.workflow.fedavg import FedAvg


class Scaffold(FedAvg):
    """Setting: `lr` (1.0), the server's step. All sites weigh the same."""

    _taking_part = 0

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
            if delta.dtype in FLOATS and not finite(model, DELTA + name):
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

    def plan(self) -> dict[str, Any]:
        part = self._taking_part / max(len(self.sites()), self._taking_part)
        return {"type": "scaffold", "lr": float(self.settings.get("lr", 1.0)), "part": part}

    def aggregate(self, results: Sequence[Result]) -> Model:
        self._taking_part = len(results)
        return super().aggregate(results)
