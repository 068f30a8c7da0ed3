"""Own code of a job: classes named as module.Class, from the job's folder, and the components that it names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from fl_runtime.errors import JobSpecError


def load_class(path: str, where: str) -> type[Any]:
    """The class; the job's folder must be on sys.path.

    Raises:
        JobSpecError: names `where` in job.yml, and why.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the job's module does when it is imported
        why = f"{type(error).__name__}: {error}"
        if module.partition(".")[0] in sys.stdlib_module_names:
            why += f"; Python has a module {module!r} of its own: give yours another name"
        raise JobSpecError(f"{where}: {path} can't be loaded", why=why) from error
    if not isinstance(found, type):
        raise JobSpecError(f"{where}: {path} is no class", why=f"it is {type(found).__name__}")
    return found


def build(described: Any, where: str) -> Any:
    """An object of {path: module.Class, args: {...}}.

    Raises:
        JobSpecError: it can't be made.
    """
    if not isinstance(described, Mapping) or not isinstance(described.get("path"), str):
        raise JobSpecError(f"{where} must be {{path: module.Class, args: {{...}}}}", why=f"it is {described!r}")
    made = load_class(described["path"], where)
    args = described.get("args") or {}
    if not isinstance(args, Mapping):
        raise JobSpecError(f"{where}: args must be a mapping", why=f"it is {args!r}")
    try:
        return made(**args)
    except Exception as error:
        raise JobSpecError(
            f"{where}: {described['path']} can't be made", why=f"{type(error).__name__}: {error}"
        ) from error


def build_components(described: Any, where: str) -> dict[str, Any]:
    """`components: {id: {path: ..., args: ...}}`; also FLARE's list of {id, path, args}."""
    if not described:
        return {}
    if isinstance(described, list):
        described = {str(entry.get("id")): entry for entry in described if isinstance(entry, Mapping)}
    if not isinstance(described, Mapping):
        raise JobSpecError(f"{where} must map ids to {{path, args}}", why=f"it is {described!r}")
    return {str(key): build(entry, f"{where}.{key}") for key, entry in described.items()}
