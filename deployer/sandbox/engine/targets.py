"""Which resources a command is about: `--target`, `--exclude`, `--replace`, by URN or with wildcards."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Urns:
    """A set of URNs; `*` in one stands for anything but a colon, `**` for anything."""

    def __init__(self, items: Iterable[str] = ()) -> None:
        items = list(items)
        self.literal = {i for i in items if "*" not in i}
        self._patterns = [_pattern(i) for i in items if "*" in i]

    def __bool__(self) -> bool:
        return bool(self.literal or self._patterns)

    def __contains__(self, urn: str) -> bool:
        return urn in self.literal or any(p.fullmatch(urn) for p in self._patterns)

    def add(self, urn: str) -> None:
        self.literal.add(urn)


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"**": ".*", "*": "[^:]*"}.get(p, re.escape(p)) for p in parts))
