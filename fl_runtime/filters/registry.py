"""The named filters, and reading lists of them from job.yml and local/policy.yml. Imports no numpy."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fl_runtime.errors import JobSpecError

# type -> (module, class, what it may be set to)
NAMED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "exclude": ("simple", "Exclude", ("variables", "remove")),
    "include": ("simple", "Include", ("variables", "remove")),
    "gaussian_noise": ("noise", "GaussianNoise", ("sigma", "sigma0", "max_percentile")),
    "clip_norm": ("clipping", "ClipNorm", ("max_norm",)),
    "clip_value": ("clipping", "ClipValue", ("limit",)),
    "percentile": ("privacy", "Percentile", ("percentile", "gamma")),
    "svt": ("privacy", "SparseVector", ("fraction", "epsilon", "noise_var", "gamma", "tau")),
    "dp_gaussian": ("noise", "GaussianMechanism", ("clip", "noise_multiplier", "delta")),
    "dp_laplace": ("noise", "LaplaceMechanism", ("clip", "epsilon")),
    "round": ("simple", "Round", ("decimals", "bits")),
    "to_diff": ("simple", "ToDiff", ()),
    "to_full": ("simple", "ToFull", ()),
    "statistics": ("simple", "Statistics", ()),
    "meta": ("simple", "Meta", ("metrics", "meta")),
}
# Names that people know from FLARE.
KNOWN_AS = {"PercentilePrivacy": "percentile", "SVTPrivacy": "svt", "GaussianPrivacy": "gaussian_noise"}
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
PLACES = ("results", "tasks")


def parse_filters(document: Any, where: str) -> dict[str, list[dict[str, Any]]]:
    """`{results: [...], tasks: [...], server: {results: [...], tasks: [...]}}` as plain data, checked.

    Raises:
        JobSpecError: names `where` and what is wrong.
    """
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise JobSpecError(f"{where}: filters must map results, tasks or server to lists", why=f"it is {document!r}")
    out: dict[str, Any] = {}
    for place, entries in document.items():
        if place == "server":
            out["server"] = parse_filters(entries, f"{where}: server")
            if "server" in out["server"] or any("path" in entry for chain in out["server"].values() for entry in chain):
                raise JobSpecError(f"{where}: filters on the server are named ones", why="a `path` runs on sites only")
        elif place in PLACES:
            out[place] = [_entry(entry, where) for entry in _list(entries, where)]
        else:
            raise JobSpecError(f"{where}: filters.{place} is unknown", why="there are: results, tasks, server")
    return {place: entries for place, entries in out.items() if entries}


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise JobSpecError(f"{where}: filters must be lists", why=f"it is {value!r}")
    return value


def _entry(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"type": entry}
    if not isinstance(entry, Mapping) or ("type" in entry) == ("path" in entry):
        raise JobSpecError(f"{where}: a filter is {{type: NAME, …}} or {{path: module.Class}}", why=f"it is {entry!r}")
    if "path" in entry:
        path, args = entry["path"], entry.get("args") or {}
        if not _PATH.fullmatch(str(path)) or not isinstance(args, Mapping) or set(entry) - {"path", "args"}:
            raise JobSpecError(f"{where}: a filter's path is module.Class, its settings are args", why=f"{entry!r}")
        return {"path": str(path), "args": dict(args)}
    kind = KNOWN_AS.get(str(entry["type"]), str(entry["type"]))
    if kind not in NAMED:
        near = difflib.get_close_matches(kind, NAMED, 1)
        hint = f"did you mean {near[0]!r}?" if near else "there are: " + ", ".join(NAMED)
        raise JobSpecError(f"{where}: there is no filter {kind!r}", why=hint)
    for key in entry:
        if key != "type" and key not in NAMED[kind][2]:
            raise JobSpecError(
                f"{where}: filter {kind} has no setting {key!r}", why="it has: " + (", ".join(NAMED[kind][2]) or "none")
            )
    return {**entry, "type": kind}


def make(entry: Mapping[str, Any]) -> Any:
    """A named filter, ready.

    Raises:
        FilterError, TypeError: its settings are wrong.
    """
    module, cls, _ = NAMED[entry["type"]]
    options = {key: value for key, value in entry.items() if key != "type"}
    return getattr(importlib.import_module(f"fl_runtime.filters.{module}"), cls)(**options)


def custom_modules(filters: Mapping[str, Any]) -> list[str]:
    """The files of the job's folder that hold its own filters."""
    paths = [str(entry["path"]) for place in PLACES for entry in filters.get(place, []) if "path" in entry]
    return sorted({path.rpartition(".")[0].replace(".", "/") + ".py" for path in paths})
