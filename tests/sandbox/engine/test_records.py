"""The stand-in does what the real engine did, in 28 recorded scenarios of 154 steps.

The records are of the real `pulumi` v3.260.0 with the Python SDK 3.272.0; `--pulumi-root DIR` runs the same scenarios
with another command.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from .bench import Bench
from .scenarios import SCENARIOS
from .seen import differences, normal, view

# The scenarios that the default suite runs; the others take longer and say less that these do not.
FAST = {
    "create_and_no_change",
    "explicit_provider_and_transforms",
    "interrupted_once",
    "options_of_resources",
    "plan_saved_and_applied",
    "program_errors",
    "secrets",
}
RECORDS: dict[str, list[dict[str, Any]]] = json.loads(
    gzip.decompress((Path(__file__).parent / "records.json.gz").read_bytes())
)


def _cases() -> list[Any]:
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in sorted(SCENARIOS)]


@pytest.mark.parametrize("name", _cases())
def test_does_what_the_real_engine_did(name: str, pulumi_root: Path) -> None:
    bench = Bench(pulumi_root)
    try:
        SCENARIOS[name](bench)
    finally:
        mine = normal(bench.close())
    recorded = RECORDS[name]
    assert [s["title"] for s in mine] == [s["title"] for s in recorded]
    found = [
        f"[{there['title']}] {line}"
        for there, here in zip(recorded, mine, strict=True)
        for line in differences(view(there), view(here))
    ]
    assert not found, "\n".join(found)


def test_every_recorded_scenario_is_run() -> None:
    assert set(RECORDS) == set(SCENARIOS)
    assert sum(map(len, RECORDS.values())) == 154
