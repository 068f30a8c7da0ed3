"""The commands that README and docs show are there, with every option that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.cli.app import VERBS, load, root

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.S | re.M)


def code(text: str) -> Iterator[str]:
    """What stands in fences, line by line without its comment, and between backticks."""
    for block in _FENCE.findall(text):
        yield from (re.sub(r"\s#.*", "", line) for line in block.splitlines())
    yield from (span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text)))


def shown(page: Path) -> list[str]:
    """The command lines of a page that begin with fedspan and go on with a verb or an option."""
    lines = (line.strip().removeprefix("$ ") for line in code(page.read_text()))
    return [line for line in lines if re.match(r"fedspan -?[\w-]+(?= |$)", line)]


def options(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def valued(command: Any) -> set[str]:
    """Its options after which a value comes."""
    return {name for param in command.params if not getattr(param, "is_flag", True) for name in param.opts}


def wrong(line: str) -> str:
    """What of a command line is not there; empty when all is."""
    words = re.findall(r"[^\s\[\]()|]+|\|", re.sub(r"  +.*", "", line))[1:]
    known = options(root()) | {"--help", "-h"}
    command: Any = None
    wants_sub = False
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word in ("--", "…"):
            break
        if re.match(r"--?[a-z]", word):
            if word.split("=")[0] not in known:
                return f"no option {word}"
        elif command is None:
            if before in valued(root()) and word not in VERBS:
                continue
            if word not in VERBS:
                return f"no verb {word}"
            command = load(word, VERBS[word])
            known |= options(command)
            wants_sub = hasattr(command, "commands")
        elif wants_sub or (before == "|" and hasattr(command, "commands")):
            if word not in command.commands:
                return f"no command {word}"
            known |= options(command.commands[word])
            wants_sub = False
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_what_a_page_tells_to_type_is_there(page: Path) -> None:
    told = {line: wrong(line) for line in shown(page)}
    assert {line: what for line, what in told.items() if what} == {}


def test_the_pages_together_show_commands() -> None:
    assert len(shown(ROOT / "README.md")) >= 5
    assert len([line for page in PAGES for line in shown(page)]) >= 40


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("fedspan -f a.yml up site-1 --ttl 8h", ""),
        ("fedspan job submit FOLDER [--wait] | list", ""),
        ("fedspan fly", "no verb fly"),
        ("fedspan --json fly", "no verb fly"),
        ("fedspan up --wings", "no option --wings"),
        ("fedspan job submit | fly", "no command fly"),
    ],
)
def test_what_is_not_there_is_found(line: str, what: str) -> None:
    assert wrong(line) == what
