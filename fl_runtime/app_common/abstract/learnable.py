"""Learnable: what a workflow learns."""

from __future__ import annotations

from typing import Any


class Learnable(dict[str, Any]):
    def is_empty(self) -> bool:
        return len(self) == 0

    def to_bytes(self) -> bytes:
        raise NotImplementedError("nothing is pickled here: make a DXO of it")
