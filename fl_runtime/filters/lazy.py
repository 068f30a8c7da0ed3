"""A model as a mapping that filters may read and change like a dict: a tensor is mapped when it is read, and what was
changed goes to a file as soon as nobody holds the tensor any more. Memory: the tensors that the filter holds.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.filters.views import View, as_dtype, grid
from fl_runtime.models.blocks import BLOCK, FLOATS
from fl_runtime.models.tensors import _NUMPY, _SIZES, Array, Tensor, allocate, as_buffer, widen_bf16


@dataclass
class _Spilled:
    """A tensor's bytes in a file of its own (without a name)."""

    fd: int
    tensor: Tensor

    def pages(self, access: int) -> mmap.mmap:
        return mmap.mmap(self.fd, max(self.tensor.length, 1), access=access)


class LazyTensors(dict[str, Any]):  # a dict, for those who ask for one; all its methods are those of MutableMapping
    """name -> numpy array (bfloat16 as float32). `data[name] = array` and changes in place are both kept."""

    def __init__(self, source: View, scratch: Path, prefix: str = "", but: str | None = None) -> None:
        """Shows the tensors whose names begin with `prefix`, without it, but not those that begin with `but`."""
        self._source = source
        self._scratch = scratch
        self._prefix = prefix
        self._order: dict[str, Tensor] = {
            name[len(prefix) :]: tensor
            for name, tensor in source.tensors.items()
            if name.startswith(prefix) and not (but and name.startswith(but))
        }
        self._spilled: dict[str, _Spilled] = {}
        self._open: dict[str, tuple[weakref.ref[Array], mmap.mmap]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._order))

    def __contains__(self, name: object) -> bool:
        return name in self._order

    def __getitem__(self, name: str) -> Array:
        tensor = self._order[name]
        held = self._open.get(name)
        if held is not None:
            alive = held[0]()
            if alive is not None:
                return alive
        self._settle()
        spilled = self._spill(name)
        pages = spilled.pages(mmap.ACCESS_WRITE)  # shared: what is changed in place is in the file
        code = "<f4" if tensor.dtype == "BF16" else _NUMPY[tensor.dtype]
        array = np.frombuffer(pages, code, tensor.count).reshape(tensor.shape)
        self._open[name] = (weakref.ref(array), pages)
        return array

    def __setitem__(self, name: str, value: Any) -> None:
        held = self._open.get(name)
        if held is not None and held[0]() is value:
            return  # changed in place
        dtype, shape, data = as_buffer(name, value)
        before = self._order.get(name)
        if dtype == "BF16":
            data = widen_bf16(data.view("<u2")).view(np.uint8)
        elif dtype in ("F32", "F64") and before is not None and before.dtype in FLOATS and before.dtype != dtype:
            # numpy widens what it computes with; what travels keeps its type
            data = _stored(data.view(_NUMPY[dtype]), before.dtype).view(np.uint8)
            dtype = before.dtype
        self._forget(name)
        spilled = self._new(Tensor(name, dtype, shape, 0, 0))
        with _writing(spilled) as put:
            put(data)
        self._order[name] = spilled.tensor
        self._spilled[name] = spilled
        self._settle()

    def __delitem__(self, name: str) -> None:
        del self._order[name]
        self._forget(name)

    def __repr__(self) -> str:
        return f"LazyTensors({len(self)} tensors)"

    # --- files

    def _new(self, tensor: Tensor) -> _Spilled:
        size = 4 if tensor.dtype == "BF16" else _SIZES[tensor.dtype]  # bfloat16 is kept as float32
        fd, path = tempfile.mkstemp(dir=self._scratch)
        os.unlink(path)
        try:
            allocate(fd, tensor.count * size)
        except OSError:
            os.close(fd)
            raise
        return _Spilled(fd, Tensor(tensor.name, tensor.dtype, tensor.shape, 0, tensor.count * size))

    def _spill(self, name: str) -> _Spilled:
        if name not in self._spilled:
            tensor = self._order[name]
            spilled = self._new(tensor)
            with _writing(spilled) as put:
                stored = self._prefix + name
                for first, count in grid(tensor):
                    put(_stored(self._source.flat(stored, first, count), tensor.dtype))
                    self._source.release(stored, first, count)
            self._spilled[name] = spilled
        return self._spilled[name]

    def _settle(self) -> None:
        """Close the maps of tensors that nobody holds: their pages are the file's, not ours."""
        for name, (array, pages) in list(self._open.items()):
            if array() is None:
                try:
                    pages.close()
                except BufferError:  # a view of it lives on
                    continue
                del self._open[name]

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        spilled = self._spilled.pop(name, None)
        if spilled is not None:
            os.close(spilled.fd)

    for _name in ("get", "pop", "popitem", "clear", "update", "setdefault", "keys", "items", "values", "__eq__"):
        locals()[_name] = getattr(MutableMapping, _name)
    del _name
    __hash__ = None

    def copy(self) -> dict[str, Any]:
        """A plain dict; the arrays stay maps of files."""
        return {name: self[name] for name in self}

    # --- as a view

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What the mapping holds now, under the names that travel."""
        return {self._prefix + name: tensor for name, tensor in self._order.items()}

    def flat(self, name: str, first: int, count: int) -> Array:
        spilled = self._spilled.get(name[len(self._prefix) :])
        if spilled is None:
            return self._source.flat(name, first, count)
        code = np.dtype("<f4" if spilled.tensor.dtype == "BF16" else _NUMPY[spilled.tensor.dtype])
        return np.frombuffer(os.pread(spilled.fd, count * code.itemsize, first * code.itemsize), code)

    def release(self, name: str, first: int, count: int) -> None:
        if name in self._source.tensors:
            self._source.release(name, first, count)


class Together:
    """Several views as one; their names differ."""

    def __init__(self, *parts: View) -> None:
        self._of = {name: part for part in parts for name in part.tensors}
        self.tensors = {name: part.tensors[name] for name, part in self._of.items()}

    def flat(self, name: str, first: int, count: int) -> Array:
        return self._of[name].flat(name, first, count)

    def release(self, name: str, first: int, count: int) -> None:
        self._of[name].release(name, first, count)


def _stored(values: Array, dtype: str) -> Array:
    return values.astype(np.float32) if dtype == "BF16" else as_dtype(values, dtype)


class _writing:
    """Appends arrays to a spilled file."""

    def __init__(self, spilled: _Spilled) -> None:
        self._fd, self._at = spilled.fd, 0

    def __enter__(self) -> Any:
        return self._put

    def __exit__(self, *_: object) -> None:
        pass

    def _put(self, data: Array) -> None:
        view = memoryview(np.ascontiguousarray(data).view(np.uint8).data)
        while view:
            done = os.pwrite(self._fd, view[: 4 * BLOCK], self._at)
            view, self._at = view[done:], self._at + done
