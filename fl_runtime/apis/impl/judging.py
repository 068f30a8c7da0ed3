"""Is the answer to a controller's task sound? Asked before it counts, as for every other result."""

from __future__ import annotations

from collections.abc import Callable

from fl_runtime.errors import FlError
from fl_runtime.models.check import OPTIMIZER_PREFIX, fault, shapes
from fl_runtime.workflow.records import Model, Result


def fault_of(sent: Model | None) -> Callable[[Result], str | None]:
    """Why a result does not count. Weights that answer weights hold no unknown tensor, no other shape, no NaN; they may
    be fewer, and of another precision. What else sites answer, the controller judges."""
    known = {}
    if sent is not None:
        with sent.open() as file:
            known = shapes(file)

    def judge(result: Result) -> str | None:
        if result.source is None or result.meta.get("params_type") not in ("FULL", "DIFF"):
            return None
        try:
            with result.open() as file:
                own = {name: tensor for name, tensor in file.tensors.items() if not name.startswith(OPTIMIZER_PREFIX)}
                for name, tensor in own.items() if known else ():
                    if name not in known:
                        return f"it holds an unknown tensor {name!r}"
                    if tensor.shape != known[name][1]:
                        return f"tensor {name!r} has the shape {list(tensor.shape)}, not {list(known[name][1])}"
                return fault(file, None)
        except FlError as error:
            return str(error)

    return judge
