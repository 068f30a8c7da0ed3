"""Blobs as other processes are told of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from fl_runtime.blobs.shelf import Shelf


def described(blobs: Shelf, blob: bytes, shown: Callable[[bytes], Path | str] | None = None) -> dict[str, str]:
    """A small blob as its bytes, `{data: base64}`; else `{file: PATH}`.

    Args:
        shown: makes the file readable for whoever is told, and says where; by default it lies where it lies.
    """
    inline = blobs.inline(blob)
    if inline is not None:
        return {"data": base64.b64encode(inline).decode()}
    return {"file": str((shown or blobs.path)(blob))}
