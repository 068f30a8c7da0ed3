"""A model into its wire form, block by block: delta, top-k and a narrow form in one pass, then zstd by leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.codecs.container import About, header_of, ordered
from fl_runtime.codecs.narrow import FORMS, HALF_MAX, Entries
from fl_runtime.codecs.sparse import TopK
from fl_runtime.codecs.spec import LOSSY
from fl_runtime.filters.views import Output, View, difference, grid, is_float, shared
from fl_runtime.models.check import OPTIMIZER_PREFIX
from fl_runtime.models.tensors import _SIZES, Array, Tensor, TensorFile, layout

SMALL = 64  # tensors of so few values travel as they are


def encode(
    source: Path | bytes,
    codecs: Sequence[Mapping[str, Any]],
    target: Path,
    *,
    base: Path | bytes | None = None,
    base_id: str = "",
    is_diff: bool = False,
) -> dict[str, str]:
    """Write the wire form of a model.

    Args:
        codecs: as in job.yml, for one direction.
        base: what a delta refers to; without it everything is sent in full (and top-k has nothing to leave out).
        is_diff: the model is a difference already.

    Returns:
        `form`: the codecs that were at work, empty when the plain model is as short; `base`, hex, when it is a delta;
        `lossless`: "1" when decoding gives the same bytes.
    """
    kinds = {str(entry["type"]): entry for entry in codecs}
    lossy = any(kind in LOSSY for kind in kinds)
    with TensorFile(source) as file:
        known = TensorFile(base) if base is not None and "delta" in kinds and not is_diff else None
        delta = "" if known is None else "values" if lossy else "bits"
        sparse = kinds.get("topk") if delta == "values" or is_diff else None
        plan = _Plan(file, known, delta, _narrow(kinds), sparse, target.parent)
        at_work = [kind for kind in kinds if kind != "zstd" and plan.uses(kind)]
        about = About(header_of(source), plan.forms, delta, base_id if delta else "")
        with_zstd = "zstd" in kinds
        size = _length(source)
        if at_work or with_zstd:
            first = _scratch(target) if with_zstd else target
            plan.write(first, about)
            if with_zstd:
                from fl_runtime.codecs.zstd import compress

                try:
                    compress(first, target, int(kinds["zstd"]["level"]), plan.width)
                finally:
                    first.unlink(missing_ok=True)
                at_work.append("zstd")
            if target.stat().st_size < size:
                lossless = all(form in ("raw", "bits") for form in plan.forms)
                return {"form": ",".join(at_work), "base": about.base, "lossless": "1" if lossless else ""}
    return {"form": "", "base": "", "lossless": "1"}


def _length(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _scratch(target: Path) -> Path:
    return target.with_name(target.name + ".parts")


def _narrow(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    if "cast" in kinds:
        return str(kinds["cast"]["dtype"])
    return "q8" if "quantize8" in kinds else "q4" if "quantize4" in kinds else ""


class _Plan:
    """Which form each tensor takes, and writing them."""

    def __init__(
        self,
        file: TensorFile,
        base: TensorFile | None,
        delta: str,
        narrow: str,
        sparse: Mapping[str, Any] | None,
        scratch: Path,
    ) -> None:
        self._file, self._base, self._narrow = file, base, narrow
        self._view: View = difference(file, base) if base is not None and delta == "values" else file
        self._shared = shared(file, base) if base is not None else set()
        self._delta, self._scratch = delta, scratch
        self._tensors = ordered(file.tensors)
        self._entries: Entries = {}
        self._top: dict[int, TopK] = {}
        self.forms = [self._form(number, tensor, sparse) for number, tensor in enumerate(self._tensors)]
        sizes: dict[int, int] = {}
        for dtype, shape in self._entries.values():
            sizes[_SIZES[dtype]] = sizes.get(_SIZES[dtype], 0) + _SIZES[dtype] * int(np.prod(shape))
        self.width = max(sizes, key=lambda size: sizes[size], default=1)  # bytes of most of the elements

    def uses(self, kind: str) -> bool:
        """The codec changes something here."""
        if kind == "delta":
            return bool(self._delta)
        if kind == "topk":
            return bool(self._top)
        return any(form.removeprefix("top:") in ("fp16", "bf16", "q8", "q4") for form in self.forms)

    def _alike(self, tensor: Tensor) -> bool:
        other = self._base.tensors.get(tensor.name) if self._base is not None else None
        return other is not None and (other.dtype, other.shape) == (tensor.dtype, tensor.shape)

    def _form(self, number: int, tensor: Tensor, sparse: Mapping[str, Any] | None) -> str:
        if self._delta == "bits" and self._alike(tensor):
            self._entries[f"{number}"] = (f"U{8 * _SIZES[tensor.dtype]}", tensor.shape)
            return "bits"
        if not self._is_difference(tensor):
            sparse = None
        if is_float(tensor) and tensor.count > SMALL and (sparse or self._narrow or self._delta == "values"):
            largest = self._largest(tensor)
            if np.isfinite(largest):
                return self._lossy(number, tensor, sparse, largest)
        self._entries[f"{number}"] = (tensor.dtype, tensor.shape)
        return "raw"

    def _is_difference(self, tensor: Tensor) -> bool:
        """Most of it can be left out. Of what stands for itself, as an optimizer's state does, nothing can."""
        return tensor.name in self._shared if self._delta else not tensor.name.startswith(OPTIMIZER_PREFIX)

    def _lossy(self, number: int, tensor: Tensor, sparse: Mapping[str, Any] | None, largest: float) -> str:
        narrow = self._narrow
        if narrow == "fp16" and largest > HALF_MAX:
            narrow = "bf16"  # of the same size, and holds it
        if sparse is not None:
            top = self._top[number] = TopK.choose(self._view, tensor, float(sparse["share"]), self._scratch)
            for suffix, entry in top.entries(narrow).items():
                self._entries[f"{number}{suffix}"] = entry
            return f"top:{narrow}"
        if not narrow or (narrow in ("fp16", "bf16") and _SIZES[tensor.dtype] == 2 and self._delta != "values"):
            self._entries[f"{number}"] = (tensor.dtype, tensor.shape)
            return "raw"
        for suffix, entry in FORMS[narrow].parts(tensor.count).items():
            self._entries[f"{number}{suffix}"] = entry
        return narrow

    def _largest(self, tensor: Tensor) -> float:
        largest = 0.0
        for first, count in grid(tensor):
            values = self._view.flat(tensor.name, first, count)
            largest = max(largest, float(np.abs(values).max()))
            if np.isnan(values).any():
                return float("nan")
        return largest

    def write(self, target: Path, about: About) -> None:
        plan = layout(self._entries, about.metadata())
        with Output(target) as out:
            out.put(plan.header, 0)
            out.truncate(plan.size)
            for number, (tensor, form) in enumerate(zip(self._tensors, self.forms, strict=True)):
                if form.startswith("top:"):
                    self._top[number].write(out, plan.tensors, number, form[4:])
                elif form in FORMS:
                    self._put_narrow(out, plan.tensors, number, tensor, form)
                else:
                    offset = plan.tensors[f"{number}"].start
                    for first, count in grid(tensor):
                        offset = out.put(self._plain(tensor, form, first, count), offset)

    def _plain(self, tensor: Tensor, form: str, first: int, count: int) -> Array:
        if form == "bits":
            assert self._base is not None
            return zigzag(bits(self._file, tensor, first, count), bits(self._base, tensor, first, count))
        return bits(self._file, tensor, first, count)

    def _put_narrow(self, out: Output, parts: Mapping[str, Tensor], number: int, tensor: Tensor, name: str) -> None:
        form = FORMS[name]
        for first, count in grid(tensor):
            at = form.at(first)
            for suffix, data in form.put(self._view.flat(tensor.name, first, count)).items():
                out.put(np.ascontiguousarray(data), parts[f"{number}{suffix}"].start + at[suffix])
            self._view.release(tensor.name, first, count)


def bits(file: TensorFile, tensor: Tensor, first: int, count: int) -> Array:
    """A block's bit patterns, as whole numbers of the element's size."""
    size = _SIZES[tensor.dtype]
    return file.raw(tensor.name)[first * size : (first + count) * size].view(f"<u{size}")


def zigzag(values: Array, base: Array) -> Array:
    """values - base, with small differences of either sign as small numbers: what zstd makes short."""
    gap = (values - base).view(f"<i{values.itemsize}")
    return ((gap << 1) ^ (gap >> (8 * values.itemsize - 1))).view(values.dtype)


def unzigzag(coded: Array, base: Array) -> Array:
    half = coded >> coded.dtype.type(1)
    sign = np.negative((coded & coded.dtype.type(1)).view(f"<i{coded.itemsize}")).view(coded.dtype)
    out: Array = (half ^ sign) + base
    return out
