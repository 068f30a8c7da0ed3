"""Top-k: only the largest values of each tensor travel, with their places.

The row is cut into stretches of 65536 values: how many of each are kept (U32), the places within (U16), the values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_runtime.codecs.narrow import FORMS, Entries
from fl_runtime.errors import ProtocolError
from fl_runtime.filters.order import kth
from fl_runtime.filters.views import Output, View, grid
from fl_runtime.models.blocks import BLOCK
from fl_runtime.models.tensors import Array, Tensor, allocate

STRETCH = 1 << 16


@dataclass
class TopK:
    """What was chosen of one tensor; places and values lie in files without a name."""

    counts: Array
    places: Array
    values: Array

    @staticmethod
    def choose(view: View, tensor: Tensor, share: float, scratch: Path) -> TopK:
        """The `share` of the tensor's values (at least one) with the largest magnitudes; of equals the first."""
        keep = max(1, round(share * tensor.count))
        least = kth(view, tensor.count - keep, [tensor.name])
        above = sum(
            int((np.abs(view.flat(tensor.name, first, count).astype(np.float64)) > least).sum())
            for first, count in grid(tensor)
        )
        equal = keep - above
        counts = np.zeros(-(-tensor.count // STRETCH), np.uint32)
        places = _map(scratch, np.uint16, keep)
        values = _map(scratch, np.float32, keep)
        done = 0
        for first, count in grid(tensor):
            block = view.flat(tensor.name, first, count).astype(np.float64)
            size = np.abs(block)
            mask = size > least
            if equal:
                level = np.flatnonzero(size == least)[:equal]
                mask[level] = True
                equal -= len(level)
            hit = np.flatnonzero(mask)
            places[done : done + len(hit)] = hit % STRETCH
            values[done : done + len(hit)] = block[hit]
            filled = np.bincount((first + hit) // STRETCH - first // STRETCH, minlength=-(-count // STRETCH))
            counts[first // STRETCH : first // STRETCH + len(filled)] = filled
            done += len(hit)
            view.release(tensor.name, first, count)
        return TopK(counts, places, values)

    def entries(self, narrow: str) -> Entries:
        keep = len(self.places)
        row: Entries = {"": ("F32", (keep,))}
        return {
            **(FORMS[narrow].parts(keep) if narrow else row),
            ".count": ("U32", (len(self.counts),)),
            ".place": ("U16", (keep,)),
        }

    def write(self, out: Output, parts: Mapping[str, Tensor], number: int, narrow: str) -> None:
        out.put(self.counts, parts[f"{number}.count"].start)
        keep = len(self.places)
        for first in range(0, keep, BLOCK):
            count = min(BLOCK, keep - first)
            out.put(np.array(self.places[first : first + count]), parts[f"{number}.place"].start + 2 * first)
            row = np.array(self.values[first : first + count])
            if not narrow:
                out.put(row, parts[f"{number}"].start + 4 * first)
                continue
            at = FORMS[narrow].at(first)
            for suffix, data in FORMS[narrow].put(row).items():
                out.put(np.ascontiguousarray(data), parts[f"{number}{suffix}"].start + at[suffix])


class Scattered:
    """Reading it back: zeros, and the values in their places."""

    def __init__(self, parts: Mapping[str, Array], tensor: Tensor, narrow: str) -> None:
        """Raises ProtocolError: counts, places and values do not fit together."""
        self._parts, self._tensor, self._narrow = parts, tensor, narrow
        counts = parts[".count"].astype(np.int64)
        if len(counts) != -(-tensor.count // STRETCH) or counts.sum() != len(parts[".place"]):
            raise ProtocolError("A top-k tensor's parts do not fit together", why=tensor.name)
        if (counts > STRETCH).any():
            raise ProtocolError("A top-k tensor has more values than places", why=tensor.name)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def block(self, first: int, count: int) -> Array:
        out = np.zeros(count, np.float32)
        for begin in range(first, first + count, STRETCH):
            number = begin // STRETCH
            start, stop = int(self._starts[number]), int(self._starts[number + 1])
            if start == stop:
                continue
            places = self._parts[".place"][start:stop].astype(np.int64)
            length = min(STRETCH, first + count - begin)
            if int(places.max()) >= length:
                raise ProtocolError("A top-k tensor's place lies outside of it", why=self._tensor.name)
            row = (
                FORMS[self._narrow].get(self._parts, start, stop - start)
                if self._narrow
                else self._parts[""][start:stop]
            )
            out[begin - first + places] = row
        return out


def _map(scratch: Path, kind: type, count: int) -> Array:
    with tempfile.TemporaryFile(dir=scratch) as file:
        allocate(file.fileno(), max(1, count) * np.dtype(kind).itemsize)
        return np.memmap(file, kind, "r+", shape=(count,))
