"""Requirements of a job, such as `numpy>=1.26`, against what an interpreter has. Checked, never installed.

Only the standard library is used: the file is also run by the interpreter of a site's job scripts, which may be
another one than the runtime's (`python requirements.py`, a JSON list on stdin, a JSON object of problems on stdout).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib import metadata

_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([A-Za-z0-9._,\s-]*)\])?\s*(.*)", re.DOTALL
)
_CLAUSE = re.compile(r"\s*(===|==|!=|<=|>=|~=|<|>)\s*([A-Za-z0-9.*+!_-]+)\s*")
_VERSION = re.compile(
    r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)"
    r"(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?(\d*))?"
    r"(?:(?:[-_.]?(?:post|rev|r)[-_.]?(\d*))|-(\d+))?"
    r"(?:[-_.]?dev[-_.]?(\d*))?(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
_STAGES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
Key = tuple[int, tuple[int, ...], tuple[int, int], int, int]


def parse_requirement(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name, and pairs of operator and version.

    Raises:
        ValueError: it is not of the form NAME[,OPERATOR VERSION]…; markers and addresses are not taken.
    """
    found = _REQUIREMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no requirement such as numpy>=1.26")
    name, _, rest = found.groups()
    rest = rest.strip()
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    clauses = []
    for part in rest.split(",") if rest else []:
        clause = _CLAUSE.fullmatch(part)
        if clause is None:
            raise ValueError(
                f"{text!r}: {part.strip()!r} is no bound such as >=1.26 (markers and addresses are not taken)"
            )
        operator, version = clause.groups()
        plain = version[:-2] if version.endswith(".*") and operator in ("==", "!=") else version
        if operator != "===":
            version_key(plain)
        clauses.append((operator, version))
    return name, clauses


def version_key(text: str) -> Key:
    """What orders versions as PEP 440 does (local parts are left out)."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no version")
    epoch, release, stage, number, post, post_dash, dev, _ = found.groups()
    numbers = [int(part) for part in release.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    posted = -1 if post is None and post_dash is None else int(post or post_dash or 0)
    if stage is not None:
        pre = (_STAGES[stage.lower()], int(number or 0))
    else:  # 1.0.dev1 comes before 1.0a1, which comes before 1.0
        pre = (-1, 0) if dev is not None and posted < 0 else (3, 0)
    return int(epoch or 0), tuple(numbers), pre, posted, int(dev or 0) if dev is not None else sys.maxsize


def satisfies(version: str, operator: str, wanted: str) -> bool:
    if operator == "===":
        return version == wanted
    have = version_key(version)
    if wanted.endswith(".*"):
        same = _begins(have, wanted[:-2])
        return same if operator == "==" else not same
    want = version_key(wanted)
    if operator == "~=":
        release = re.match(r"v?(?:\d+!)?\d+(?:\.\d+)*", wanted).group()  # type: ignore[union-attr]
        return have >= want and _begins(have, release.rpartition(".")[0])
    if operator == "<" and not _early(want):  # 2.0rc1 is not below 2.0 for whoever writes <2.0: the bound is 2.0.dev0
        want = (*want[:2], want[2] if want[3] >= 0 else (-1, 0), want[3], 0)
    if operator == ">" and have[:3] == want[:3] and have[3] >= 0 > want[3] and want[4] == sys.maxsize:
        return False  # nor is 2.0.post1 above it
    return {"==": have == want, "!=": have != want, "<=": have <= want, ">=": have >= want}.get(
        operator, have < want if operator == "<" else have > want
    )


def _begins(have: Key, wanted: str) -> bool:
    """Whether a version's release begins with these numbers, of the same epoch."""
    epoch, _, release = wanted.removeprefix("v").rpartition("!")
    prefix = [int(part) for part in release.split(".")]
    return have[0] == int(epoch or 0) and ([*have[1], *[0] * len(prefix)])[: len(prefix)] == prefix


def _early(key: Key) -> bool:
    """A pre-release or one for developers."""
    return key[2] != (3, 0) or key[4] != sys.maxsize


def missing(requirements: Sequence[str]) -> dict[str, str]:
    """What this interpreter lacks: the requirement, and why."""
    lacking = {}
    for text in requirements:
        name, clauses = parse_requirement(text)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking[text] = f"{name} is not installed"
            continue
        bad = [operator + wanted for operator, wanted in clauses if not satisfies(version, operator, wanted)]
        if bad:
            lacking[text] = f"{name} is {version}, not {','.join(bad)}"
    return lacking


if __name__ == "__main__":
    print(json.dumps(missing(json.load(sys.stdin))))
