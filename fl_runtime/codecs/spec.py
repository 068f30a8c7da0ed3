"""`codecs` of job.yml: which of them, in which direction. Imports no numpy.

They work in a fixed order, whatever the list's: delta, topk, then one of cast, quantize8 and quantize4, then zstd.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from fl_runtime.errors import JobSpecError
from fl_runtime.names import FEATURES

SETTINGS: dict[str, tuple[str, ...]] = {
    "delta": (),
    "topk": ("share",),
    "cast": ("dtype",),
    "quantize8": (),
    "quantize4": (),
    "zstd": ("level",),
}
LOSSY = ("topk", "cast", "quantize8", "quantize4")
_NARROW = ("cast", "quantize8", "quantize4")
WAYS = ("both", "results", "tasks")
CODECS, ZSTD = "codecs-1", "zstd-1"  # features of a Hello


def parse_codecs(document: Any, where: str) -> list[dict[str, Any]]:
    """The list as plain data, checked, in working order.

    Raises:
        JobSpecError: names `where` and what is wrong.
    """
    if document is None:
        return []
    if not isinstance(document, (list, tuple)):
        raise JobSpecError(f"{where}: codecs must be a list", why=f"it is {document!r}")
    entries = [_entry(entry, where) for entry in document]
    for way in ("results", "tasks"):
        kinds = [entry["type"] for entry in entries if entry["on"] in ("both", way)]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise JobSpecError(f"{where}: codec {kind} stands there twice for {way}")
        if sum(kind in _NARROW for kind in kinds) > 1:
            raise JobSpecError(f"{where}: one of {', '.join(_NARROW)} for {way}, not several")
        if way == "tasks" and "topk" in kinds and "delta" not in kinds:
            raise JobSpecError(f"{where}: topk for tasks needs delta", why="most of a model can't be left out")
    return sorted(entries, key=lambda entry: list(SETTINGS).index(entry["type"]))


def _entry(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"type": entry}
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise JobSpecError(f"{where}: a codec is {{type: NAME, …}}", why=f"it is {entry!r}")
    kind = str(entry["type"])
    if kind not in SETTINGS:
        near = difflib.get_close_matches(kind, SETTINGS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "there are: " + ", ".join(SETTINGS)
        raise JobSpecError(f"{where}: there is no codec {kind!r}", why=hint)
    for key in entry:
        if key not in ("type", "on", *SETTINGS[kind]):
            raise JobSpecError(f"{where}: codec {kind} has no setting {key!r}")
    out = {"on": "both", **entry}
    if out["on"] not in WAYS:
        raise JobSpecError(f"{where}: codec {kind}: on must be one of {', '.join(WAYS)}", why=f"it is {out['on']!r}")
    if kind == "cast" and out.setdefault("dtype", "fp16") not in ("fp16", "bf16"):
        raise JobSpecError(f"{where}: codec cast: dtype must be fp16 or bf16", why=f"it is {out['dtype']!r}")
    if kind == "topk" and not _between(out.setdefault("share", 0.01), 0, 1):
        raise JobSpecError(f"{where}: codec topk: share must lie between 0 and 1", why=f"it is {out['share']!r}")
    if kind == "zstd" and not (_between(out.setdefault("level", 3), 0, 20) and isinstance(out["level"], int)):
        raise JobSpecError(f"{where}: codec zstd: level must be a number from 1 to 19", why=f"it is {out['level']!r}")
    return out


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low < value < high


def chosen(codecs: Sequence[Mapping[str, Any]], way: str, peer: Sequence[str] | frozenset[str]) -> list[dict[str, Any]]:
    """The codecs for one direction that both sides understand; none for an older peer."""
    if CODECS not in peer:
        return []
    return [
        dict(entry)
        for entry in codecs
        if entry["on"] in ("both", way) and (entry["type"] != "zstd" or (ZSTD in peer and ZSTD in FEATURES))
    ]
