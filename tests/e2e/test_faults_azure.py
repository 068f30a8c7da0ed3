"""Every call to Azure goes wrong in turn, and every deletion on AWS: `up` goes on, `down` leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Bench, bench_in
from campaign_page import Seen, write_rows
from campaign_run import CREATES, check_clean_run, run_with_fault

pytestmark = pytest.mark.slow
CASES = [
    *(
        ("create", name, fault)
        for name in CREATES["azure"]
        for fault in ("answer lost", "engine killed", "both killed")
    ),
    ("configure", "azure-native", "refused"),
    ("create", "site-1-vm", "refused"),
    ("create", "site-1-interface", "network gone"),
    ("create", "site-1-vm", "fedspan killed"),
    ("create", "site-1-vm", "Ctrl-C"),
]
DELETES = ("answer lost", "engine killed", "both killed", "network gone")


@pytest.fixture(scope="module")
def bench(cache: Path) -> Iterator[Bench]:
    with bench_in(cache) as made:
        made.write("azure")
        yield made
    write_rows("Azure", rows["azure"])
    write_rows("AWS, deleting", rows["aws"])


rows: dict[str, list[Seen]] = {"azure": [], "aws": []}


def test_the_calls_are_all_that_a_clean_run_makes(bench: Bench) -> None:
    check_clean_run(bench, CREATES["azure"])


@pytest.mark.parametrize(("number", "verb", "name", "fault"), [(number, *case) for number, case in enumerate(CASES)])
def test_a_fault_in_an_up_leaves_nothing(bench: Bench, number: int, verb: str, name: str, fault: str) -> None:
    run_with_fault(bench, rows["azure"], verb, name, fault, then="up" if number % 2 else "down")


@pytest.mark.parametrize("fault", DELETES)
def test_a_fault_in_a_down_leaves_nothing(bench: Bench, fault: str) -> None:
    run_with_fault(bench, rows["azure"], "delete", "site-1-rg", fault, then="down", cycle="down")


@pytest.mark.parametrize(("number", "name"), list(enumerate(CREATES["aws"])))
def test_a_fault_in_a_down_on_aws_leaves_nothing(bench: Bench, number: int, name: str) -> None:
    bench.write("aws")
    fault = DELETES[number % len(DELETES)]
    run_with_fault(bench, rows["aws"], "delete", name, fault, then="down", cycle="down")
