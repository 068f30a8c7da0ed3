"""Pure decisions about differences: what forces a replacement, and which dependents a deletion takes along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import paths, urns
from .difference import Diff
from .graph import Graph
from .state import Resource
from .values import UNKNOWN, Properties, changed_keys

INIT_ERROR = "#initerror"


def differ(old: Properties, new: Properties) -> list[str]:
    return changed_keys(old, new)


def force_replacement(diff: Diff, on_changes: list[str], init_errors: bool) -> Diff:
    """The diff with the changes that the program wants answered by a replacement turned into such."""
    if not on_changes:
        return diff
    wanted = [paths.parse(p) for p in on_changes]

    def hit(path: str) -> bool:
        return any(paths.contains(w, paths.parse(path)) for w in wanted)

    detailed = {
        path: {**d, "diffKind": d["diffKind"] if d["diffKind"].endswith("-replace") else f"{d['diffKind']}-replace"}
        if hit(path)
        else d
        for path, d in diff.detailed.items()
    }
    keys = urns.unique([*diff.replace_keys, *(k for k in diff.changed_keys if hit(k))])
    some = diff.changes
    if init_errors and [INIT_ERROR] in wanted:
        keys, some = [*keys, INIT_ERROR], True
    return replace(diff, detailed=detailed, replace_keys=keys, changes=some)


@dataclass
class Dependent:
    """A resource that goes with another, and the property keys that force it."""

    resource: Resource
    keys: list[str]


def dependents(
    graph: Graph,
    root: Resource,
    ask: Callable[[Resource, Properties], Diff],
    *,
    deleting: bool,
) -> list[Dependent]:
    """What must be replaced when `root` is deleted first: the resources whose properties come from it and whose
    provider says that they can't take new values in place. With `deleting`, `root` does not come back: then all that
    need it go.
    """
    gone = {root.urn}
    out = []
    for resource in graph.dependents(root):
        if not resource.custom or resource.external:
            continue
        provider = urns.split_reference(resource.provider)[0] if resource.provider else ""
        inputs = dict(resource.inputs)
        hit = False
        for key in inputs:
            if gone & set(resource.property_dependencies.get(key, ())):
                inputs[key] = UNKNOWN
                hit = True
        if provider in gone:
            out.append(Dependent(resource, ["provider"]))
        elif resource.deleted_with in gone:
            out.append(Dependent(resource, ["deletedWith"]))
        elif hit and ((diff := ask(resource, inputs)).replaces or deleting):
            out.append(Dependent(resource, diff.replace_keys))
        elif deleting and not hit:
            out.append(Dependent(resource, []))
        else:
            continue
        gone.add(resource.urn)
    return out
