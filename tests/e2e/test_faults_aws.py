"""Every call that makes something on AWS goes wrong in turn: `up` goes on, `down` leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Bench, bench_in
from campaign_page import Seen, write_rows
from campaign_run import CREATES, check_clean_run, run_with_fault

from deployer.sandbox.faults import Faults

pytestmark = pytest.mark.slow

EVERYWHERE = ("answer lost", "engine killed", "both killed")
CASES = [
    *((("create"), name, fault) for name in CREATES["aws"] for fault in EVERYWHERE),
    ("configure", "aws", "refused"),
    ("configure", "aws", "network gone"),
    ("invoke", "aws:ssm/getParameter:getParameter", "refused"),
    ("create", "site-1-subnet", "refused"),
    ("create", "site-1-address", "network gone"),
    ("create", "site-1-vm", "refused"),
    ("create", "site-1-vm", "network gone"),
    ("create", "site-1-vpc", "fedspan killed"),
    ("create", "site-1-address", "fedspan killed"),
    ("create", "site-1-vm", "fedspan killed"),
    ("create", "site-1-interface", "Ctrl-C"),
    ("create", "site-1-vm", "Ctrl-C"),
    ("create", "site-1-interface", "fedspan killed"),
]


@pytest.fixture(scope="module")
def bench(cache: Path) -> Iterator[Bench]:
    with bench_in(cache) as made:
        made.write("aws")
        yield made
    write_rows("AWS, making", rows)


rows: list[Seen] = []


def test_the_calls_are_all_that_a_clean_run_makes(bench: Bench) -> None:
    check_clean_run(bench, CREATES["aws"])


@pytest.mark.parametrize(("number", "verb", "name", "fault"), [(number, *case) for number, case in enumerate(CASES)])
def test_a_fault_in_an_up_leaves_nothing(bench: Bench, number: int, verb: str, name: str, fault: str) -> None:
    run_with_fault(bench, rows, verb, name, fault, then="up" if number % 2 else "down")


@pytest.mark.parametrize("fault", ["engine killed", "both killed", "fedspan killed"])
def test_a_fault_in_a_move_to_another_zone_leaves_nothing(bench: Bench, fault: str) -> None:
    bench.write("aws", zone=None, zones=["eu-central-1a", "eu-central-1b"])
    bench.daemon.faults.write(Faults(no_capacity=("eu-central-1a",)))
    try:
        step = "create site-1-vm in the second zone"
        run_with_fault(bench, rows, "create", "site-1-vm", fault, then="up", step=step)
    finally:
        bench.daemon.faults.write(Faults())
        bench.write("aws")
