"""What a filter is, and what it is given."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.errors import FlError
from fl_runtime.filters.views import Mapped, View, difference, shared, total
from fl_runtime.models.blocks import BLOCK


class FilterError(FlError):
    """A filter can't do what it is there for: nothing leaves."""


@dataclass
class Work:
    """One result (or task) on its way through the filters.

    Attributes:
        meta: its plain part (params_type, metrics, meta, ...); filters may change it.
        base: the model that the script received; None when it got none (and for tasks).
        key: 16 random bytes, drawn once for this run: all noise comes from them.
        scratch: where files for the time of this run may lie.
        releases: how many results of this job the site has released, this one counted.
        number: of the filter in its chain, so that no two draw the same noise.
        task, site: names, for filters that ask their context.
    """

    meta: dict[str, Any]
    base: View | None = None
    key: bytes = b"\0" * 16
    scratch: Path = Path()
    releases: int = 1
    number: int = 0
    task: str = ""
    site: str = ""

    @property
    def is_diff(self) -> bool:
        return self.meta.get("params_type") == "DIFF"

    @property
    def steps(self) -> float:
        """Steps of this round (NUM_STEPS_CURRENT_ROUND); 1 when the site did not say."""
        value = (self.meta.get("meta") or {}).get("NUM_STEPS_CURRENT_ROUND")
        return float(value) if value else 1.0

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Plain data for `meta[key]`, a list."""
        inner = dict(self.meta.get("meta") or {})
        inner[key] = [*inner.get(key, []), dict(value)]
        self.meta["meta"] = inner

    def stream(self, purpose: int = 0) -> Callable[[int, int], np.random.Generator]:
        """Random numbers by (tensor, first element of a block): the same each time they are asked for."""
        key, place = int.from_bytes(self.key, "little"), self.number * 16 + purpose

        def at(tensor: int, first: int) -> np.random.Generator:
            return np.random.Generator(np.random.Philox(key=key, counter=[0, first // BLOCK, tensor, place]))

        return at


class BlockFilter:
    """A filter of the product: gives a lazy view, may scan its source before (a second pass).

    Attributes:
        of_update: it works on what the script changed: of full weights, the difference to the received model.
    """

    of_update = False

    def apply(self, view: View, work: Work) -> View:
        if self.of_update and not work.is_diff and work.base is not None and shared(view, work.base):
            return total(self.change(difference(view, work.base), work), work.base)
        return self.change(view, work)

    def change(self, view: View, work: Work) -> View:
        raise NotImplementedError


def matcher(patterns: Sequence[str]) -> Any:
    """A test of names against patterns: shell-like, or `re:` and a regular expression."""
    parts = [pattern[3:] if pattern.startswith("re:") else fnmatch.translate(pattern) for pattern in map(str, patterns)]
    try:
        compiled = [re.compile(part) for part in parts]
    except re.error as error:
        raise FilterError("A filter's pattern is wrong", why=str(error)) from None
    return lambda name: any(one.fullmatch(name) for one in compiled)


def withhold(view: View, work: Work, names: set[str]) -> View:
    """Tensors whose content must not leave: the received model's values in their place, zeros in a difference."""
    base = None if work.is_diff else work.base

    def instead(name: str, first: int, values: Any) -> Any:
        known = base.tensors.get(name) if base is not None else None
        if base is not None and known is not None and known.shape == view.tensors[name].shape:
            return base.flat(name, first, len(values))
        return np.zeros_like(values)

    return Mapped(view, instead, names)
