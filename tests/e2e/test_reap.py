"""What a lost state or a lost ledger leaves is found in both clouds, told with its cost, and deleted when agreed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Bench, bench_in
from campaign_run import NO_LOGIN

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(cache: Path) -> Iterator[Bench]:
    with bench_in(cache) as made:
        yield made


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_what_no_stack_knows_is_found_told_and_deleted(bench: Bench, cloud: str) -> None:
    bench.write(cloud)
    assert bench.run("up", "--yes").code == NO_LOGIN
    nothing = bench.run("reap")
    assert nothing.code == 0, nothing.err
    assert "nothing that no stack knows of" in nothing.out, "what a stack holds is no orphan"
    shutil.rmtree(bench.fed / ".fedspan" / "stacks" / "state")
    asked = bench.run("reap")
    assert asked.code == 13, "it asks before it deletes"
    assert "site-1-vm" in asked.out
    assert "so far" in asked.out
    assert bench.inventory() != []
    document = bench.run("reap", "--json", "--yes").ok()
    orphans = next(event["orphans"] for event in document.events if event["event"] == "orphans")
    machine = next(entry for entry in orphans if entry["name"] == "site-1-vm")
    assert machine["usd_hour"] > 0
    assert machine["usd"] >= 0
    assert document.last["left"] == 0
    assert bench.inventory() == []
    assert bench.run("down", "--yes").code == 0


def test_another_deployment_is_left_alone_until_it_is_named(bench: Bench) -> None:
    bench.write("aws")
    assert bench.run("up", "--yes").code == NO_LOGIN
    shutil.rmtree(bench.fed / ".fedspan")  # ledger, state and keys: as from another computer
    found = bench.run("reap", "--yes")
    assert found.code == 0, found.err
    assert "of another deployment" in found.out
    there = bench.inventory()
    assert there != []
    events = bench.run("reap", "--json", "--yes").events
    identity = next(event["orphans"][0]["deployment"] for event in events if event["event"] == "orphans")
    done = bench.run("reap", "--deployment", identity, "--yes")
    assert done.code == 0, done.err
    assert "0 left" in done.out
    assert bench.inventory() == []
