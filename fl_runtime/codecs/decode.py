"""A wire form back into the plain model, block by block. What it reads may come from anybody: everything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fl_runtime.codecs.container import About, ordered, prepare, read_about
from fl_runtime.codecs.encode import bits, unzigzag
from fl_runtime.codecs.narrow import FORMS, Entries
from fl_runtime.codecs.sparse import Scattered
from fl_runtime.errors import ProtocolError
from fl_runtime.filters.views import Output, as_dtype, grid, is_float
from fl_runtime.models.tensors import _SIZES, Array, Tensor, TensorFile


def decode(source: Path | bytes, target: Path, limit: int, base: Path | bytes | None = None, base_id: str = "") -> None:
    """Write the plain model to `target`.

    Args:
        limit: bytes that it may have; a few bytes could unfold to any length.
        base: the plain model that a delta refers to, and its id (hex).

    Raises:
        ProtocolError: it is no wire form, is too large, or refers to another base.
    """
    from fl_runtime.codecs.zstd import is_compressed

    if not is_compressed(source):
        _decode(source, target, limit, base, base_id)
        return
    from fl_runtime.codecs.zstd import decompress

    parts = target.with_name(target.name + ".parts")
    try:
        decompress(source, parts, limit)
        _decode(parts, target, limit, base, base_id)
    finally:
        parts.unlink(missing_ok=True)


def _decode(source: Path | bytes, target: Path, limit: int, base: Path | bytes | None, base_id: str) -> None:
    with TensorFile(source) as file:
        about = read_about(file)
        if about.delta and (base is None or about.base != base_id):
            raise ProtocolError("A delta's base is not here", why=about.base)
        known = TensorFile(base) if about.delta and base is not None else None
        plain = prepare(about.header, target, limit)
        tensors = ordered(plain.tensors)
        if len(about.forms) != len(tensors):
            raise ProtocolError("An encoded model does not name a form for each tensor")
        with Output(target) as out:
            for number, (tensor, form) in enumerate(zip(tensors, about.forms, strict=True)):
                reader = _Reader(file, number, tensor, form, about, known)
                offset = tensor.start
                for first, count in grid(tensor):
                    offset = out.put(reader.block(first, count), offset)


class _Reader:
    """One tensor."""

    def __init__(
        self, file: TensorFile, number: int, tensor: Tensor, form: str, about: About, base: TensorFile | None
    ) -> None:
        self._tensor, self._form = tensor, form
        other = base.tensors.get(tensor.name) if base is not None else None
        if form == "bits":
            if other is None or (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
                raise ProtocolError("A delta's tensor is not in its base", why=tensor.name)
        elif other is not None and (form == "raw" or other.shape != tensor.shape or not is_float(other)):
            other = None  # its values are its own
        self._base = base if other is not None else None
        self._parts = _parts(file, number, tensor, form)
        self._top = Scattered(self._parts, tensor, form[4:]) if form.startswith("top:") else None

    def block(self, first: int, count: int) -> Array:
        tensor, form = self._tensor, self._form
        if form == "raw":
            return self._parts[""][first : first + count]
        if form == "bits":
            assert self._base is not None
            return unzigzag(self._parts[""][first : first + count], bits(self._base, tensor, first, count))
        top = self._top
        values = top.block(first, count) if top is not None else FORMS[form].get(self._parts, first, count)
        if self._base is not None:
            values = values.astype(np.float64) + self._base.flat(tensor.name, first, count)
        return as_dtype(values, tensor.dtype)


def _parts(file: TensorFile, number: int, tensor: Tensor, form: str) -> dict[str, Array]:
    """The tensor's parts as flat arrays; halves of bfloat16 as bits, raw parts as they are.

    Raises:
        ProtocolError: an unknown form, or parts of another type or length than it takes.
    """
    wanted: Entries
    if form == "raw":
        wanted = {"": (tensor.dtype, tensor.shape)}
    elif form == "bits":
        wanted = {"": (f"U{8 * _SIZES[tensor.dtype]}", tensor.shape)}
    elif form in FORMS and is_float(tensor):
        wanted = FORMS[form].parts(tensor.count)
    elif form.startswith("top:") and form[4:] in ("", *FORMS) and is_float(tensor):
        place = file.tensors.get(f"{number}.place")
        keep = place.count if place is not None else 0
        counts = file.tensors.get(f"{number}.count")
        rows: Mapping[str, tuple[str, tuple[int, ...]]] = (
            FORMS[form[4:]].parts(keep) if form[4:] else {"": ("F32", (keep,))}
        )
        wanted = {**rows, ".place": ("U16", (keep,)), ".count": ("U32", (counts.count if counts else 0,))}
    else:
        raise ProtocolError("An encoded model has a tensor of an unknown form", why=form)
    out = {}
    for suffix, (dtype, shape) in wanted.items():
        part = file.tensors.get(f"{number}{suffix}")
        if part is None or (part.dtype, part.shape) != (dtype, shape):
            raise ProtocolError("An encoded model's part is missing, or not what it should be", why=tensor.name)
        name = f"{number}{suffix}"
        bare = form == "raw" or dtype == "BF16"
        out[suffix] = file.raw(name).view(f"<u{_SIZES[dtype]}") if bare else file.flat(name)
    return out
