"""Models of a controller: blobs of the server's store, and the job's checkpoint among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fl_runtime.apis import wire
from fl_runtime.apis.dxo import DXO, DataKind
from fl_runtime.models import tensors as safetensors
from fl_runtime.names import INLINE_LIMIT
from fl_runtime.workflow.records import Model

if TYPE_CHECKING:
    from fl_runtime.apis.impl.hosting import ControllerWorkflow


class Models:
    def __init__(self, workflow: ControllerWorkflow) -> None:
        self._workflow = workflow
        self._weights: Model | None = None  # sent last
        self._saved = False

    def keep(self, arrays: dict[str, Any]) -> Model:
        """Make arrays a blob."""
        plan, buffers = safetensors.encode(arrays)
        if plan.size <= INLINE_LIMIT:
            return self._workflow.store.keep_bytes(safetensors.dump(plan, buffers))
        path = self._workflow.new_file(plan.size)
        safetensors.write(path, plan, buffers)
        return self._workflow.keep(path)

    def sent(self, model: Model, meta: dict[str, Any]) -> None:
        """Weights that go out are the job's model so far, as long as the controller has saved none itself."""
        if self._saved or (self._weights is not None and self._weights.blob == model.blob):
            return
        self._weights = model
        self._workflow.checkpoint(model, {"round": meta.get("current_round")})

    def save(self, weights: dict[str, Any], metrics: dict[str, Any], best: bool) -> None:
        """The job's model from now on; with `best` its best one, too."""
        arrays = wire.encode(DXO(DataKind.WEIGHTS, weights).to_shareable())[1]
        self._saved = True
        with self._workflow.calls.lock:
            self._workflow.checkpoint(self.keep(arrays), metrics, best)

    def load(self) -> dict[str, Any] | None:
        """The last one, or that of job.yml; None when there is none."""
        model = self._workflow.first_model()
        if model is None:
            return None
        file = model.open()
        return {name: file.array(name) for name in file.tensors}
