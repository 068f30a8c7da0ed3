"""The file in which an encoded model travels: a safetensors file of parts, whose metadata says what they are.

`forms` has an entry for each tensor of the original header, in its order: raw, bits (difference of bit patterns to the
base, zigzag), a narrow form, or top:FORM; of floats as `values` of a delta when `delta` says so. Part n holds tensor n.
The original header goes along as it is, so that what is decoded without loss has the same bytes and the same id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime.errors import ProtocolError
from fl_runtime.filters.views import Output
from fl_runtime.models.tensors import Tensor, TensorFile

KEY = "fedspan.codec"


@dataclass(frozen=True)
class About:
    """What the metadata says."""

    header: str  # the original's, JSON
    forms: list[str]
    delta: str = ""  # "", "values" or "bits"
    base: str = ""  # hex of the base's id

    def metadata(self) -> dict[str, str]:
        body = {"v": 1, "header": self.header, "forms": self.forms, "delta": self.delta, "base": self.base}
        return {KEY: json.dumps(body, separators=(",", ":"))}


def read_about(file: TensorFile) -> About:
    """Raises ProtocolError: the file is no encoded model."""
    try:
        body = json.loads(file.metadata[KEY])
        about = About(body["header"], list(body["forms"]), body["delta"], body["base"])
        if body["v"] != 1 or about.delta not in ("", "values", "bits"):
            raise ValueError("an unknown version")
        if not isinstance(about.header, str) or not isinstance(about.base, str):
            raise TypeError("header and base must be texts")
        if not all(isinstance(form, str) for form in about.forms):
            raise TypeError("forms must be texts")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError("A payload is not an encoded model", why=str(error) or repr(error)) from None
    return about


def header_of(source: Path | bytes) -> str:
    """The header of a safetensors file, as it is."""
    if isinstance(source, bytes):
        return source[8 : 8 + int.from_bytes(source[:8], "little")].decode()
    with open(source, "rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode()


def prepare(header: str, target: Path, limit: int) -> TensorFile:
    """Make `target` a file with this header and room for the tensors; they are checked.

    Raises:
        ProtocolError: the header is wrong, or the file would be longer than `limit` bytes.
    """
    try:
        entries: dict[str, Any] = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        size = max(ends, default=0)
        if not isinstance(size, int) or size < 0:
            raise ValueError("offsets must be whole numbers")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ProtocolError("An encoded model's header is wrong", why=repr(error)) from None
    head = header.encode()
    total = 8 + len(head) + size
    if total > limit:
        raise ProtocolError("An encoded model would be too large", why=f"{total} bytes, at most {limit} are expected")
    with Output(target) as out:
        out.put(len(head).to_bytes(8, "little") + head, 0)
        out.truncate(total)
    return TensorFile(target)


def ordered(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """In the header's order: part n belongs to the n-th."""
    return list(tensors.values())
