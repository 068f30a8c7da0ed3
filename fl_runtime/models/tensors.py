"""Safetensors, read by mapping and written without a copy.

The format: 8 bytes length of the header (little endian), the header (JSON: name -> dtype, shape, data_offsets), the
data. The library's numpy loader copies, and its maps are read-only (writing there from torch is a segmentation fault);
ours are private copy-on-write maps: a script may change its parameters in place; pages it never touches cost nothing.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_runtime.errors import ProtocolError
from fl_runtime.flush import STRETCH, start_writing_back

Array = NDArray[Any]
_MAX_HEADER = 256 * 1024 * 1024
_SIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
_NUMPY = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
}
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: `start` and `length` in bytes of the whole file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class TensorFile:
    """A safetensors file or byte string: its header is checked, its tensors are views."""

    def __init__(self, source: Path | bytes) -> None:
        """Map a file, or take bytes.

        Raises:
            ProtocolError: not a well-formed safetensors file.
        """
        self._buffer: Any
        if isinstance(source, Path):
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                if size < 8:
                    raise ProtocolError("A model file is too short")
                self._buffer = mmap.mmap(fd, size, access=mmap.ACCESS_COPY)
            finally:
                os.close(fd)
        else:
            size = len(source)
            self._buffer = bytearray(source)
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, str] = {}
        self._parse(size)

    def _parse(self, size: int) -> None:
        if size < 8:
            raise ProtocolError("A model file is too short")
        length = int.from_bytes(self._buffer[:8], "little")
        if length > min(size - 8, _MAX_HEADER):
            raise ProtocolError("A model file's header is longer than the file", why=f"{length} bytes")
        try:
            header = json.loads(bytes(self._buffer[8 : 8 + length]))
            metadata = header.pop("__metadata__", {})
            self.metadata = {str(key): str(value) for key, value in metadata.items()}
            base, spans = 8 + length, []
            for name, entry in header.items():
                shape = tuple(entry["shape"])
                begin, end = entry["data_offsets"]
                dtype = entry["dtype"]
                if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                    raise ValueError(f"{name}: not whole numbers")
                if end - begin != math.prod(shape) * _SIZES[dtype] or base + end > size:
                    raise ValueError(f"{name}: its bytes and its shape do not agree")
                spans.append((begin, end))
                self.tensors[name] = Tensor(name, dtype, shape, base + begin, end - begin)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ProtocolError("A model file's header is wrong", why=str(error) or repr(error)) from None
        at = 0
        for begin, end in sorted(spans):
            if begin != at:
                raise ProtocolError("A model file's tensors overlap or leave gaps")
            at = end
        if base + at != size:
            raise ProtocolError("A model file does not end where its tensors end")

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffer = None  # the map closes when the last view is gone

    def raw(self, name: str) -> Array:
        """The tensor's bytes as a flat array of uint8."""
        tensor = self.tensors[name]
        return np.frombuffer(self._buffer, np.uint8, tensor.length, tensor.start)

    def array(self, name: str) -> Array:
        """The tensor as numpy; writable, changes stay private.

        bfloat16, which numpy lacks, comes as ml_dtypes' type where that is installed, else widened to float32.
        """
        tensor = self.tensors[name]
        if tensor.dtype == "BF16":
            kind = _bfloat16()
            if kind is None:
                return self.flat(name).reshape(tensor.shape)
            return np.frombuffer(self._buffer, kind, tensor.count, tensor.start).reshape(tensor.shape)
        return np.frombuffer(self._buffer, _NUMPY[tensor.dtype], tensor.count, tensor.start).reshape(tensor.shape)

    def flat(self, name: str, first: int = 0, count: int | None = None) -> Array:
        """A stretch of the tensor's elements, flat; a view except for bfloat16."""
        tensor = self.tensors[name]
        count = tensor.count - first if count is None else count
        size = _SIZES[tensor.dtype]
        if tensor.dtype == "BF16":
            halves = np.frombuffer(self._buffer, "<u2", count, tensor.start + first * size)
            return widen_bf16(halves)
        return np.frombuffer(self._buffer, _NUMPY[tensor.dtype], count, tensor.start + first * size)

    def release(self, name: str, first: int, count: int) -> None:
        """Let the kernel drop the pages of a stretch that will not be read again."""
        if isinstance(self._buffer, mmap.mmap):
            tensor = self.tensors[name]
            size = _SIZES[tensor.dtype]
            start = (tensor.start + first * size) // mmap.PAGESIZE * mmap.PAGESIZE
            end = (tensor.start + (first + count) * size) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > start:
                self._buffer.madvise(mmap.MADV_DONTNEED, start, end - start)

    def torch(self, name: str) -> Any:
        """The tensor as torch, sharing the private map."""
        import torch

        tensor = self.tensors[name]
        kinds = {
            "BOOL": torch.bool,
            "U8": torch.uint8,
            "I8": torch.int8,
            "I16": torch.int16,
            "F16": torch.float16,
            "BF16": torch.bfloat16,
            "I32": torch.int32,
            "F32": torch.float32,
            "F64": torch.float64,
            "I64": torch.int64,
            "U16": torch.uint16,
            "U32": torch.uint32,
            "U64": torch.uint64,
        }
        kind = kinds.get(tensor.dtype)
        if kind is None:
            raise ProtocolError(f"torch has no {tensor.dtype}", why=f"tensor {name}")
        if tensor.count == 0:
            return torch.empty(tensor.shape, dtype=kind)
        return torch.frombuffer(self._buffer, dtype=kind, count=tensor.count, offset=tensor.start).reshape(tensor.shape)


def _bfloat16() -> Any:
    """numpy's type for bfloat16, if the package ml_dtypes is installed."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


def widen_bf16(halves: Array) -> Array:
    """bfloat16 bits (uint16) as float32: the upper half of its bits."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def narrow_bf16(values: Array) -> Array:
    """float32 as bfloat16 bits, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


@dataclass(frozen=True)
class Layout:
    """Header bytes of a file to be written, and where each tensor will lie."""

    header: bytes
    tensors: dict[str, Tensor]
    size: int


def layout(entries: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None) -> Layout:
    """Lay out tensors given as name -> (dtype name, shape). Wider types first, so that all stay aligned."""
    ordered = sorted(entries, key=lambda name: (-_SIZES[entries[name][0]], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in ordered:
        dtype, shape = entries[name]
        length = math.prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    body = json.dumps(header, separators=(",", ":")).encode()
    body += b" " * (-(8 + len(body)) % 64)  # data begins on a cache line
    base = 8 + len(body)
    placed = {
        name: Tensor(
            name,
            entries[name][0],
            entries[name][1],
            base + header[name]["data_offsets"][0],
            header[name]["data_offsets"][1] - header[name]["data_offsets"][0],
        )
        for name in ordered
    }
    return Layout(len(body).to_bytes(8, "little") + body, placed, base + at)


def is_torch(value: Any) -> bool:
    """A torch tensor, found without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def has_torch() -> bool:
    """torch can be imported here: a server, or a site whose jobs need none, may be without it."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def as_array(value: Any) -> Array:
    """An array, a torch tensor or a number as numpy, without a copy where possible; bfloat16 as `TensorFile.array`."""
    if not is_torch(value):
        return np.asarray(value)
    dtype, shape, data = as_buffer("a tensor", value)
    if dtype != "BF16":
        return data.view(_NUMPY[dtype]).reshape(shape)
    kind = _bfloat16()
    return (widen_bf16(data.view("<u2")) if kind is None else data.view(kind)).reshape(shape)


def as_buffer(name: str, value: Any) -> tuple[str, tuple[int, ...], Array]:
    """One parameter as (dtype name, shape, bytes as a flat uint8 array), without a copy where it is contiguous.

    Raises:
        TypeError: neither an array nor a tensor nor numbers.
    """
    if is_torch(value):
        import torch

        flat = value.detach().cpu().contiguous()
        code = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}.get(
            flat.dtype
        )
        if code is None:
            code = _NAMES[flat.numpy().dtype]
        return code, tuple(flat.shape), flat.reshape(-1).view(torch.uint8).numpy()
    array = np.asarray(value)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.name == "bfloat16":  # ml_dtypes
        return "BF16", array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if array.dtype not in _NAMES:
        raise TypeError(
            f"parameter {name!r} is {type(value).__name__} of {array.dtype}: give arrays or tensors of numbers"
        )
    shape = array.shape  # ascontiguousarray makes a scalar one-dimensional
    return _NAMES[array.dtype], shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def encode(params: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> tuple[Layout, dict[str, Array]]:
    """Prepare tensors for writing: the layout, and each one's bytes."""
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    buffers: dict[str, Array] = {}
    for name, value in params.items():
        dtype, shape, buffer = as_buffer(str(name), value)
        entries[str(name)] = (dtype, shape)
        buffers[str(name)] = buffer
    return layout(entries, metadata), buffers


def dump(plan: Layout, buffers: Mapping[str, Array]) -> bytes:
    """A small model as bytes."""
    out = bytearray(plan.header)
    for name in plan.tensors:
        out += buffers[name].data
    return bytes(out)


def write(path: Path, plan: Layout, buffers: Mapping[str, Array]) -> None:
    """A model into a file (a recycled one is written over), each tensor straight from its memory."""
    with open_over(path) as file:
        _write_all(file, memoryview(plan.header))
        for name in plan.tensors:
            _write_all(file, buffers[name].data)
        file.truncate(plan.size)


def open_over(path: Path) -> io.FileIO:
    """Open for writing from the start, without cutting what is there."""
    return io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def allocate(fd: int, size: int) -> None:
    """Give a file that is to be mapped its blocks, at least one byte: where a map finds none, the process is killed.

    Raises:
        OSError: the disk is full.
    """
    os.posix_fallocate(fd, 0, max(1, size))


def _write_all(file: Any, view: memoryview) -> None:
    while view:
        view = view[file.write(view[:STRETCH]) :]
        if view:
            start_writing_back(file.fileno(), 0, 0)
