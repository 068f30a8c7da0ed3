"""Which engine begins when there are more of them than processors."""

from __future__ import annotations

import threading

import pytest

from deployer.member import Member
from deployer.starts import Starts
from tests.deployer.decision_samples import SERVER, member
from tests.waiting import until

AWS, AZURE = member("site-1"), member("site-2", "azure")


def begin(starts: Starts, members: list[Member], over: threading.Event) -> tuple[list[str], list[threading.Thread]]:
    """Each in a thread of its own, which ends when it is over; their names as they begin."""
    begun: list[str] = []

    def run(one: Member) -> None:
        with starts.begin(one):
            begun.append(one.name)
            over.wait(60)

    threads = [threading.Thread(target=run, args=(one,)) for one in members]
    for thread in threads:
        thread.start()
    return begun, threads


def test_who_waits_begins_by_urgency_when_another_has_made_its_first_step() -> None:
    starts, over = Starts(1), threading.Event()
    with starts.begin(member("site-0")):
        begun, threads = begin(starts, [AWS, AZURE, SERVER], over)
        until(lambda: len(starts._waiting) == 3)
        assert begun == []
        starts.works("site-0")  # the operation goes on
        for expected in (["server"], ["server", "site-2"], ["server", "site-2", "site-1"]):
            until(lambda expected=expected: begun == expected)
            starts.works(expected[-1])
            starts.works(expected[-1])  # each step tells it
    over.set()
    for thread in threads:
        thread.join(60)
    assert starts._free == 1


def test_an_engine_that_makes_no_step_stands_in_nobodys_way_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.starts.LONGEST_S", 0.05)
    starts, over = Starts(1), threading.Event()
    begun, threads = begin(starts, [AWS, AZURE, SERVER], over)
    until(lambda: len(begun) == 3)
    over.set()
    for thread in threads:
        thread.join(60)
    assert starts._free == 1


def test_an_engine_that_ends_without_a_step_lets_the_next_one_begin() -> None:
    starts, over = Starts(1), threading.Event()
    over.set()
    begun, threads = begin(starts, [AWS, AZURE, SERVER], over)
    for thread in threads:
        thread.join(60)
    assert sorted(begun) == ["server", "site-1", "site-2"]
