"""Property paths (`tags.owner`, `rules[0].port`, `["a.b"]`, `*`), as ignoreChanges and replaceOnChanges use them."""

from __future__ import annotations

import re
from typing import Any

from .values import Properties, Secret

Path = list[str | int]
_PART = re.compile(
    r"""\[\s*(?P<index>\d+)\s*\] | \[\s*"(?P<quoted>(?:[^"\\]|\\.)*)"\s*\] | \[\*\] | (?P<name>[^.\[\]"]+)""", re.X
)


def parse(text: str) -> Path:
    """The parts of a path; `*` stands for every key or index."""
    out: Path = []
    for match in _PART.finditer(text):
        if match["index"] is not None:
            out.append(int(match["index"]))
        elif match["quoted"] is not None:
            out.append(re.sub(r"\\(.)", r"\1", match["quoted"]))
        else:
            out.append(match["name"] or "*")
    return out


def contains(outer: Path, inner: Path) -> bool:
    """Whether `inner` is `outer` or lies below it."""
    return len(outer) <= len(inner) and all(a in {"*", b} for a, b in zip(outer, inner, strict=False))


def reset(news: Properties, olds: Properties, path: str) -> Properties:
    """`news` with the old value at the path: what is ignored keeps what it was, or stays away where it was not."""
    out = _reset(news, olds, parse(path))
    return out if isinstance(out, dict) else news


_MISSING = object()


def _reset(new: Any, old: Any, path: Path) -> Any:
    if not path:
        return old
    if isinstance(new, Secret) or isinstance(old, Secret):
        bare_new = new.value if isinstance(new, Secret) else new
        bare_old = old.value if isinstance(old, Secret) else old
        found = _reset(bare_new, bare_old, path)
        return found if found is _MISSING else Secret(found)
    head, rest = path[0], path[1:]
    if isinstance(new, dict):
        keys = sorted({*new, *(old if isinstance(old, dict) else ())}) if head == "*" else [str(head)]
        out = dict(new)
        for key in keys:
            before = old.get(key, _MISSING) if isinstance(old, dict) else _MISSING
            if rest and (key not in new or before is _MISSING):
                continue  # nothing there on one side: there is nothing below to keep
            after = _reset(new.get(key), before, rest)
            if after is _MISSING:
                out.pop(key, None)
            else:
                out[key] = after
        return out
    if isinstance(new, list) and isinstance(old, list):
        places = range(len(new)) if head == "*" else [head] if isinstance(head, int) else []
        items = list(new)
        for place in places:
            if place < len(new) and place < len(old):
                items[place] = _reset(new[place], old[place], rest)
        return items
    return new
