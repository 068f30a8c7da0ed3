"""The contract of every StateStore: what it returned is durable, what it was told twice counts once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_runtime.errors import FlError
from fl_runtime.hub.quorum import Part, decide
from fl_runtime.hub.sqlite import SqliteState
from fl_runtime.hub.state import Boundary, Call, Job, StateStore, Task

Opener = Callable[[], StateStore]


@pytest.fixture(params=["sqlite"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return lambda: SqliteState(tmp_path / "hub.db")


def job(name: str = "job-1", state: str = "QUEUED") -> Job:
    return Job(name, "n", {"workflow": {}}, "ana", b"e", b"s", b"c", b"d" * 32, 9, state)


def call(round_: int = 0, index: int = 0) -> tuple[Call, list[Task]]:
    made = Call("job-1", round_, index, "train", ("a", "b"), "digest", {"k": 1}, None, {"min": 2})
    return made, [
        Task(f"job-1/{round_}.{index}/{site}", "job-1", round_, index, site, 1, "open") for site in ("a", "b")
    ]


def test_what_was_said_is_there_after_a_restart(opener: Opener) -> None:
    store = opener()
    assert store.add_job(job())
    store.set_job("job-1", "RUNNING")
    store.set_process("job-1", 3, (12, 34, "boot"))
    store.set_site("job-1", "a", "accepted")
    store.open_call(*call())
    store.answer("job-1/0.0/a", {"m": 1}, b"r" * 32)
    store.commit(Boundary("job-1", 0, {"s": [1]}, b"m" * 32, {"loss": 0.5}, 1.0))
    store.close()
    again = opener()
    found = again.job("job-1")
    assert found is not None
    assert (found.state, found.epoch, found.process) == ("RUNNING", 3, (12, 34, "boot"))
    assert again.sites("job-1") == {"a": ("accepted", "")}
    first, second = again.tasks("job-1", 0, 0)
    assert (first.state, first.meta, first.result) == ("answered", {"m": 1}, b"r" * 32)
    assert second.state == "open"
    last = again.last_boundary("job-1")
    assert last is not None
    assert (last.round, last.state, last.metrics) == (0, {"s": [1]}, {"loss": 0.5})


def test_a_job_is_added_once(opener: Opener) -> None:
    store = opener()
    assert store.add_job(job())
    assert not store.add_job(job())
    assert [entry.id for entry in store.jobs()] == ["job-1"]
    assert store.jobs(["RUNNING"]) == []


def test_a_transaction_is_all_or_nothing(opener: Opener) -> None:
    store = opener()

    def half() -> None:
        with store.tx():
            store.add_job(job())
            store.set_site("job-1", "a", "accepted")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert store.job("job-1") is None
    assert store.sites("job-1") == {}


def test_closing_a_call_drops_what_is_open_and_keeps_what_was_judged(opener: Opener) -> None:
    store = opener()
    made, tasks = call()
    store.open_call(made, tasks)
    store.answer(tasks[0].id, {}, None)
    store.judge(tasks[0].id, "accepted")
    store.close_call(made, {"used": ["a"]})
    assert [task.state for task in store.tasks("job-1", 0, 0)] == ["accepted", "dropped"]
    closed = store.call("job-1", 0, 0)
    assert closed is not None
    assert (closed.state, closed.outcome) == ("closed", {"used": ["a"]})
    assert store.open_calls("job-1") == []
    assert store.open_tasks("job-1", "b") == []


def test_answers_remember_their_order(opener: Opener) -> None:
    store = opener()
    made, tasks = call()
    store.open_call(made, tasks)
    for task in reversed(tasks):
        store.answer(task.id, {}, None)
    order = {task.site: task.order for task in store.tasks("job-1", 0, 0)}
    assert order["b"] < order["a"]


def test_the_deadline_counts_only_time_that_the_server_was_up(opener: Opener) -> None:
    store = opener()
    made, tasks = call()
    store.open_call(made, tasks)
    store.add_waited(made, 2.5)
    store.add_waited(made, 1.0)
    kept = store.call("job-1", 0, 0)
    assert kept is not None
    assert kept.waited == 3.5


def test_events_have_rising_numbers_and_are_read_after_one(opener: Opener) -> None:
    store = opener()
    numbers = [store.add_event("job-1", {"event": str(n)}) for n in range(3)]
    assert numbers == sorted(set(numbers))
    assert [document["event"] for _, document in store.events("job-1", numbers[0])] == ["1", "2"]


def test_participants_and_revocations_are_kept(opener: Opener) -> None:
    store = opener()
    store.saw("a", "site", "ff", "0.1", {"k": "v"}, "addr")
    store.saw("a", "site", "ff", "0.2", {}, "addr")
    assert [(row["name"], row["version"]) for row in store.participants()] == [("a", "0.2")]
    assert store.revoked() == frozenset()
    store.revoke("ff")
    assert store.revoked() == {"ff"}


def test_metrics_are_kept_in_order(opener: Opener) -> None:
    store = opener()
    store.add_metrics("job-1", "a", [{"key": "loss", "value": 1, "step": 0}, {"key": "loss", "value": 0.5, "step": 1}])
    assert [(row["site"], row["value"], row["step"]) for row in store.metrics("job-1")] == [
        ("a", 1.0, 0),
        ("a", 0.5, 1),
    ]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    SqliteState(tmp_path / "hub.db").close()
    with sqlite3.connect(tmp_path / "hub.db") as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(FlError, match="newer version"):
        SqliteState(tmp_path / "hub.db")


# --- the quorum


def part(state: str, lost: float | None = None, site: str = "s") -> Part:
    return Part(site, state, lost)


@pytest.mark.parametrize(
    ("parts", "minimum", "waited", "verdict"),
    [
        ([part("accepted"), part("accepted")], 2, 0, "close"),
        ([part("accepted"), part("open")], 1, 0, "open"),  # connected: it is waited for
        ([part("accepted"), part("open", 4.9)], 1, 0, "open"),  # not lost long enough
        ([part("accepted"), part("open", 5.0)], 1, 0, "close"),
        ([part("accepted"), part("open", 99)], 2, 0, "open"),  # below the minimum: it may come back
        ([part("accepted"), part("open", 99), part("open")], 1, 0, "open"),
        ([part("accepted"), part("answered"), part("open", 99)], 1, 0, "open"),  # a result is being looked at
        ([part("accepted"), part("open")], 1, 60, "close"),  # the deadline
        ([part("accepted"), part("open")], 2, 60, "fail"),
        ([part("accepted"), part("refused")], 2, 0, "fail"),
        ([part("accepted"), part("failed"), part("open")], 3, 0, "fail"),  # can't be met any more
        ([part("refused"), part("failed")], 1, 0, "fail"),
    ],
)
def test_when_a_round_is_over(parts: list[Part], minimum: int, waited: float, verdict: str) -> None:
    assert decide(parts, minimum, waited, 60.0, 5.0).verdict == verdict


def test_a_failed_quorum_names_each_site_and_its_reason() -> None:
    parts = [part("accepted", site="a"), Part("b", "refused", why="holds NaN"), Part("c", "failed")]
    assert decide(parts, 2, 0, None, 5).why == "1 of 2 needed results; b: holds NaN; c: failed"
