"""Is a result what it should be? Asked before it counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_runtime.models.tensors import TensorFile

_BLOCK = 1 << 20
_FLOATS = ("F16", "BF16", "F32", "F64")
OPTIMIZER_PREFIX = "__optimizer__."


def fault(result: TensorFile, expected: Mapping[str, tuple[str, tuple[int, ...]]] | None) -> str | None:
    """Why a result does not count: an unknown tensor, another shape or dtype, NaN or infinity; None when it is sound.

    Args:
        expected: name -> (dtype, shape) of the model that was sent; None when there was none (the first result sets it)
            A result holds the same tensors, all of them.
    """
    names = [name for name in result.tensors if not name.startswith(OPTIMIZER_PREFIX)]
    if not names:
        return "it holds no tensor"
    for name in names:
        tensor = result.tensors[name]
        if expected is not None:
            if name not in expected:
                return f"it holds an unknown tensor {name!r}"
            dtype, shape = expected[name]
            if tensor.shape != shape:
                return f"tensor {name!r} has the shape {list(tensor.shape)}, not {list(shape)}"
            if tensor.dtype != dtype:
                return f"tensor {name!r} is {tensor.dtype}, not {dtype}"
        if tensor.dtype in _FLOATS and not finite(result, name):
            return f"tensor {name!r} holds NaN or infinity"
    if expected is not None and len(names) != len(expected):
        lacking = next(name for name in expected if name not in result.tensors)
        return f"it lacks the tensor {lacking!r}"
    return None


def finite(model: TensorFile, name: str) -> bool:
    """No NaN and no infinity in a tensor; memory of one block."""
    count = model.tensors[name].count
    blocks = ((first, min(_BLOCK, count - first)) for first in range(0, count, _BLOCK))
    return all(np.isfinite(model.flat(name, first, length)).all() for first, length in blocks)


def shapes(model: TensorFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What `fault` compares with."""
    return {
        name: (tensor.dtype, tensor.shape)
        for name, tensor in model.tensors.items()
        if not name.startswith(OPTIMIZER_PREFIX)
    }
