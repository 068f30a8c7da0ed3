"""Models as lazy views: what a filter or a codec does happens block by block, when somebody reads the block.

A view has `tensors` and `flat(name, first, count)`; a mapped file (TensorFile) is one. Blocks lie on a grid of BLOCK
elements and are asked for as such. A view is pure: the same block gives the same values each time, noise too, so that
a later filter may scan it before it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from fl_runtime.flush import start_writing_back
from fl_runtime.models.blocks import BLOCK, FLOATS
from fl_runtime.models.tensors import _NUMPY, Array, Tensor, layout, narrow_bf16, open_over

_FLUSH = 64 * 1024 * 1024  # bytes of dirty pages before the kernel is asked to write


class View(Protocol):
    """`flat` gives the tensor's own type (bfloat16 as float32) or float64."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    def flat(self, name: str, first: int, count: int) -> Array: ...
    def release(self, name: str, first: int, count: int) -> None: ...


def grid(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """(first element, count) of each block."""
    for first in range(0, tensor.count, BLOCK):
        yield first, min(BLOCK, tensor.count - first)


def is_float(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATS


def float_names(view: View) -> list[str]:
    """The tensors of floats, by name."""
    return sorted(name for name, tensor in view.tensors.items() if is_float(tensor))


class Mapped:
    """A view whose blocks of some tensors go through a function; the others pass as they are."""

    def __init__(self, source: View, change: Callable[[str, int, Array], Array], names: set[str] | None = None) -> None:
        """`change(name, first, values)` gets float64 that it may write into. Default: all tensors of floats."""
        self._source = source
        self._change = change
        self._names = set(float_names(source)) if names is None else names

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._source.tensors

    def flat(self, name: str, first: int, count: int) -> Array:
        values = self._source.flat(name, first, count)
        return self._change(name, first, values.astype(np.float64)) if name in self._names else values

    def release(self, name: str, first: int, count: int) -> None:
        self._source.release(name, first, count)


class Selected:
    """Some tensors of a view."""

    def __init__(self, source: View, names: set[str]) -> None:
        self._source = source
        self.tensors = {name: tensor for name, tensor in source.tensors.items() if name in names}

    def flat(self, name: str, first: int, count: int) -> Array:
        return self._source.flat(name, first, count)

    def release(self, name: str, first: int, count: int) -> None:
        self._source.release(name, first, count)


def shared(view: View, base: View) -> set[str]:
    """Tensors of floats that both have alike."""
    both = [name for name in float_names(view) if name in base.tensors and is_float(base.tensors[name])]
    return {name for name in both if base.tensors[name].shape == view.tensors[name].shape}


def difference(view: View, base: View) -> Mapped:
    """view - base, for the tensors of floats that both have."""
    return Mapped(view, lambda name, first, values: values - base.flat(name, first, len(values)), shared(view, base))


def total(view: View, base: View) -> Mapped:
    """view + base, for the tensors of floats that both have."""
    return Mapped(view, lambda name, first, values: values + base.flat(name, first, len(values)), shared(view, base))


def as_dtype(values: Array, dtype: str) -> Array:
    """Values as the stored type: floats rounded to nearest, whole numbers rounded and kept within their range."""
    if dtype == "BF16":
        return narrow_bf16(values.astype(np.float32, copy=False))
    kind = np.dtype(_NUMPY[dtype])
    if values.dtype == kind:
        return np.ascontiguousarray(values)
    if kind.kind == "b":
        return values >= 0.5
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.clip(np.rint(values), limits.min, limits.max).astype(kind)
    with np.errstate(over="ignore"):  # what a half can't hold becomes infinity, which the server refuses by name
        return values.astype(kind)


class Output:
    """A file that is written at offsets; dirty pages go to disk in the background."""

    def __init__(self, path: Path) -> None:
        self._file = open_over(path)
        self._dirty, self._from = 0, 0

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def put(self, data: bytes | Array, offset: int) -> int:
        """Write; the offset behind it."""
        view = memoryview(data if isinstance(data, bytes) else data.view(np.uint8).data)
        while view:
            done = os.pwrite(self._file.fileno(), view, offset)
            view, offset, self._dirty = view[done:], offset + done, self._dirty + done
        if self._dirty >= _FLUSH:
            start_writing_back(self._file.fileno(), self._from, offset - self._from)
            self._dirty, self._from = 0, offset
        return offset


def write(view: View, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """A view as a safetensors file, block by block."""
    plan = layout({name: (tensor.dtype, tensor.shape) for name, tensor in view.tensors.items()}, metadata)
    with Output(path) as out:
        out.put(plan.header, 0)
        for name, tensor in plan.tensors.items():
            offset = tensor.start
            for first, count in grid(tensor):
                offset = out.put(as_dtype(view.flat(name, first, count), tensor.dtype), offset)
                view.release(name, first, count)
        out.truncate(plan.size)
