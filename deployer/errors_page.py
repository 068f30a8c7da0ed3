"""docs/errors.md from the errors themselves: `python -m deployer.errors_page > docs/errors.md`."""

from __future__ import annotations

import sys

import deployer.errors
from startup_kits.errors import FedspanError

_HEAD = """\
# Exit codes

<!-- Made from the code: python -m deployer.errors_page > docs/errors.md -->

Every error says what happened, to whom, why, and the next command to type: as text on standard error. With `--json` the
same comes as one JSON document on standard output as well (`error`, `what`, `participant`, `why`, `next`, `log`,
`exit_code`), so that a program reads one stream and a person the other. `-v` adds the traceback.

| code | error | what it means |
|---|---|---|
| 0 | | done, or there was nothing to do |
| 1 | | unexpected: a bug in fedspan; please report it with the output of `-v` |
"""

_TAIL = """
`fedspan ssh P -- COMMAND` passes on the command's own exit code.
"""


def known() -> list[type[FedspanError]]:
    """The errors that a user may see, by exit code."""
    named = (getattr(deployer.errors, name) for name in deployer.errors.__all__)
    errors = [one for one in named if isinstance(one, type) and issubclass(one, FedspanError) and one.exit_code != 1]
    return sorted(errors, key=lambda one: one.exit_code)


def page() -> str:
    """The page's text."""
    rows = [f"| {one.exit_code} | {one.__name__} | {meaning(one)} |\n" for one in known()]
    return _HEAD + "".join(rows) + _TAIL


def meaning(error: type[FedspanError]) -> str:
    """The first paragraph of its docstring, as it stands in a table: no capital, no full stop."""
    text = " ".join((error.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
    return text[0].lower() + text[1:] if text[:1].isupper() and not text.startswith("Ctrl-C") else text


if __name__ == "__main__":
    sys.stdout.write(page())
