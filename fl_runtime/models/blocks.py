"""Working through models block by block: whatever the model and the number of sites, memory of a few blocks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_runtime.flush import STRETCH, start_writing_back
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import Array, Tensor, TensorFile, layout, narrow_bf16, open_over

BLOCK = 1 << 19  # elements: 4 MiB of float64
THREADS = min(4, os.cpu_count() or 1)
FLOATS = ("F16", "BF16", "F32", "F64")
Entries = Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Share:
    """One site's result and its weight (steps or samples). With `base`, the result is a difference to that model."""

    site: str
    weight: float
    model: TensorFile
    base: TensorFile | None = None

    def block(self, name: str, first: int, count: int) -> Array:
        """The site's weights, float64."""
        values = self.model.flat(name, first, count).astype(np.float64)
        if self.base is not None:
            values += self.base.flat(name, first, count)
        return values


def in_order(shares: Sequence[Share]) -> list[Share]:
    """Site-name order: the same bits whatever the order of arrival."""
    return sorted(shares, key=lambda share: share.site)


def model_entries(template: TensorFile, dtype: str | None = None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a model (not what belongs to an optimizer), all as `dtype` if given (floats only then)."""
    return {
        name: (dtype or tensor.dtype, tensor.shape)
        for name, tensor in template.tensors.items()
        if not name.startswith(OPTIMIZER_PREFIX) and (dtype is None or tensor.dtype in FLOATS)
    }


class BlockWriter:
    """Writes a safetensors file in any order of blocks; values are float64 and become the tensor's own type."""

    def __init__(self, target: Path, entries: Entries, metadata: Mapping[str, str] | None = None) -> None:
        self._plan = layout(entries, metadata)
        self.tensors = self._plan.tensors
        self._file = open_over(target)
        self._file.write(self._plan.header)
        self._file.truncate(self._plan.size)
        self._dirty = 0  # bytes since the last flush, about: threads may miscount a block

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[Tensor, int, int]]:
        """(tensor, first element, count) through the whole model, at most `size` elements each."""
        for tensor in self.tensors.values():
            for first in range(0, tensor.count, size):
                yield tensor, first, min(size, tensor.count - first)

    def fill(self, make: Callable[[Tensor, int, int], Array], threads: int = THREADS, size: int = BLOCK) -> None:
        """Write `make(tensor, first, count)` for every block of at most `size` elements.

        Blocks do not depend on each other: a few threads share them, and the bits are the same. Memory is that of one
        block for each thread.
        """
        blocks, lock = self.blocks(size), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    block = next(blocks, None)
                if block is None:
                    return
                self.put(block[0].name, block[1], make(*block))

        with ThreadPoolExecutor(max(1, threads), "blocks") as pool:
            for done in [pool.submit(work) for _ in range(max(1, threads))]:
                done.result()

    def put(self, name: str, first: int, values: Array) -> None:
        tensor = self.tensors[name]
        size = tensor.length // max(tensor.count, 1)
        view = _as(values, tensor.dtype).view(np.uint8).data
        offset, length = tensor.start + first * size, len(view)
        while view:
            done = os.pwrite(self._file.fileno(), view, offset)
            view = view[done:]
            offset += done
        self._dirty += length
        if self._dirty >= STRETCH:
            self._dirty = 0
            start_writing_back(self._file.fileno(), 0, 0)


def _as(values: Array, dtype: str) -> Array:
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    if dtype == "BF16":
        return narrow_bf16(values.astype(np.float32))
    if dtype in kinds:
        return np.ascontiguousarray(values.astype(kinds[dtype], copy=False))
    if dtype == "BOOL":
        return (values >= 0.5).astype(np.bool_)
    names = {"U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}
    return np.rint(values).astype(names[dtype])
