"""docs/engine.md says what is held against the real engine; its table is made from the records."""

from __future__ import annotations

import os
from pathlib import Path

from .test_records import FAST, RECORDS

DOC = Path(__file__).parents[3] / "docs" / "engine.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->"


def table() -> str:
    """A row for each scenario: its steps, what ends badly in it, and in which suite it is run."""
    rows = ["| scenario | steps | suite | what is done |", "|---|---|---|---|"]
    for name, steps in sorted(RECORDS.items()):
        done = []
        for step in steps[1:]:  # the first one opens the stack
            raised = step.get("raised", {}).get("class")
            done.append(step["title"] + (f" ({raised})" if raised else ""))
        suite = "default" if name in FAST else "slow"
        rows.append(f"| {name.replace('_', ' ')} | {len(steps)} | {suite} | {'; '.join(done)} |")
    rows.append(f"| {len(RECORDS)} scenarios | {sum(map(len, RECORDS.values()))} | | |")
    return "\n".join(rows) + "\n"


def test_the_documentation_has_the_table_of_the_records() -> None:
    text = DOC.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    wanted = f"{before}{_BEGIN}{table()}{_END}{after}"
    if os.environ.get("FEDSPAN_WRITE_DOCS"):
        DOC.write_text(wanted)
    assert DOC.read_text() == wanted, (
        "the table is out of date: FEDSPAN_WRITE_DOCS=1 pytest tests/sandbox/engine/test_docs.py"
    )
