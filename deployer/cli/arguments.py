"""Global options, understood before and after the verb.

click ties an option to the command it stands behind. Users don't care: `fedspan up --sandbox` and
`fedspan --sandbox up` are the same wish. So the global options are taken out of the command line first; what
remains is the verb with its own arguments. Pure: no IO, no environment but the one given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# verbs with an own `-f` (follow); behind these words `-f` is theirs and only `--file` is the spec
OWN_F = {"logs"}

# verbs whose words after the first positional are another program's command line
PASS_THROUGH = {"ssh"}

FLAGS = {
    "--sandbox": "sandbox",
    "--json": "json",
    "-y": "yes",
    "--yes": "yes",
    "-v": "verbose",
    "--verbose": "verbose",
}

PATHS = {"--file": "file", "--pulumi": "pulumi"}


@dataclass(frozen=True)
class GlobalOptions:
    """What every verb may be told.

    Attributes:
        file: the spec, or the folder that holds it; None looks in the current folder and above.
        sandbox: the emulated clouds instead of the real ones.
        json: machine-readable output.
        yes: don't ask.
        verbose: tell more; tracebacks of unexpected errors.
        pulumi: the `pulumi` command to use, its folder, or for `engine install` its archive.
    """

    file: Path | None = None
    sandbox: bool = False
    json: bool = False
    yes: bool = False
    verbose: bool = False
    pulumi: Path | None = None


class MissingValue(Exception):
    """A global option stands at the end without its value."""


def truthy(value: str | None) -> bool:
    """How FEDSPAN_SANDBOX and its like are read."""
    return (value or "").strip().lower() not in {"", "0", "false", "no", "off"}


def split(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[GlobalOptions, list[str]]:
    """Global options, and the rest of the command line in its order.

    Raises:
        MissingValue: `-f`, `--file` or `--pulumi` without a path behind it.
    """
    found: dict[str, bool] = {}
    paths: dict[str, Path] = {}
    rest: list[str] = []
    words: list[str] = []  # words that are not options: verb, sub-verb, positionals
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word == "--":
            rest += [word, *argv[at:]]
            break
        if word in FLAGS:
            found[FLAGS[word]] = True
        elif word in PATHS or (word == "-f" and not OWN_F & set(words[:2])):
            if at >= len(argv):
                raise MissingValue(word)
            paths[PATHS.get(word, "file")] = Path(argv[at])
            at += 1
        elif word.partition("=")[0] in PATHS:
            name, _, value = word.partition("=")
            paths[PATHS[name]] = Path(value)
        else:
            rest.append(word)
            if not word.startswith("-"):
                words.append(word)
                if len(words) == 2 and words[0] in PASS_THROUGH:
                    rest += argv[at:]
                    break
    return (
        GlobalOptions(
            file=paths.get("file"),
            pulumi=paths.get("pulumi"),
            sandbox=found.get("sandbox", False) or truthy(environ.get("FEDSPAN_SANDBOX")),
            json=found.get("json", False),
            yes=found.get("yes", False),
            verbose=found.get("verbose", False) or truthy(environ.get("FEDSPAN_DEBUG")),
        ),
        rest,
    )
