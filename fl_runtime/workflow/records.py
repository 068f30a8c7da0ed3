"""What workflows handle: models, results, and the error of a round that can't be closed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError
from fl_runtime.models.meta import WEIGHT_KEY
from fl_runtime.models.tensors import TensorFile


class QuorumError(FlError):
    """A round can't be closed: too few results."""

    exit_code = 12


@dataclass(frozen=True)
class Model:
    """A model in the hub's blob store. `source` is its file, or its bytes when it is small."""

    blob: str
    source: Path | bytes

    def open(self) -> TensorFile:
        return TensorFile(self.source)

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return size_of(self.source)


@dataclass(frozen=True)
class Result:
    """One site's accepted answer. `blob` is its model's id in the hub's store."""

    site: str
    meta: dict[str, Any]
    source: Path | bytes | None
    blob: str | None = None

    @property
    def weight(self) -> float:
        """Steps (or samples) of this round; 1 when the site did not say."""
        value = (self.meta.get("meta") or {}).get(WEIGHT_KEY, 1)
        return float(value) if value is not None else 1.0

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.meta.get("metrics") or {})

    @property
    def size(self) -> int:
        """Bytes of its model."""
        return size_of(self.source)

    @property
    def is_diff(self) -> bool:
        return self.meta.get("params_type") == "DIFF"

    def open(self) -> TensorFile:
        if self.source is None:
            raise FlError("A result holds no model", participant=self.site)
        return TensorFile(self.source)


def size_of(source: Path | bytes | None) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source or b"")
