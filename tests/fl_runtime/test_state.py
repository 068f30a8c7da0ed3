"""The contract of every StateStore: what it returned is durable, what it was told twice counts once."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_samples import call, job

from fl_runtime.blobs import BlobStore, of_bytes
from fl_runtime.db import Sqlite
from fl_runtime.errors import FlError
from fl_runtime.hub.schema import MIGRATIONS
from fl_runtime.hub.sqlstate import SqlState
from fl_runtime.hub.state import FINAL, Boundary, Late
from fl_runtime.hub.store import open_store
from fl_runtime.postgres import Postgres

Opener = Callable[[], SqlState]


@pytest.fixture(params=["sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    opened: list[SqlState] = []

    def make() -> SqlState:
        opened.append(open_store(tmp_path, url))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


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


@pytest.mark.parametrize("state", FINAL)
def test_a_job_that_has_ended_stays_so(opener: Opener, state: str) -> None:
    store = opener()
    store.add_job(job())
    assert store.set_job("job-1", "RUNNING")
    assert store.set_job("job-1", state, "the cause")
    ended = store.job("job-1")
    assert not store.set_job("job-1", "RUNNING")
    assert store.job("job-1") == ended
    assert not store.set_job("job-2", state)


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
    for number in range(3):
        store.add_event("job-1", {"event": str(number)})
    numbers = [number for number, _ in store.events("job-1", 0)]
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


def test_a_metric_that_is_no_number_is_kept_as_none_and_spoils_nothing(opener: Opener) -> None:
    store = opener()
    items = [
        {"key": "a", "value": math.nan, "step": 2**80},
        {"key": "b", "value": math.inf, "step": 1.0},
        {"key": "c\0\ud800", "value": 1},
    ]
    store.add_metrics("job-1", "a", items)
    first, second, third = store.metrics("job-1")
    assert (first["value"], first["step"]) == (None, None)
    assert (second["value"], second["step"]) == (math.inf, 1)
    assert third["value"] == 1


def test_metrics_and_where_a_site_is_with_them_are_one_commit(opener: Opener) -> None:
    store = opener()
    assert store.metrics_at("job-1", "a") == 0
    store.add_metrics("job-1", "a", [{"key": "loss", "value": 1}], at=120)
    store.close()
    again = opener()
    assert again.metrics_at("job-1", "a") == 120
    number = again.metrics("job-1")[0]["number"]
    again.add_metrics("job-1", "a", [{"key": "loss", "value": 2}], at=240)
    assert [row["value"] for row in again.metrics("job-1", after=number)] == [2.0]


def test_a_group_is_committed_by_itself_and_within_a_transaction_it_is_part_of_that(opener: Opener) -> None:
    store = opener()
    store.add_event("job-1", {"event": "first"})

    def fails() -> None:
        with store.tx():
            store.add_event("job-1", {"event": "never"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with store.tx():
        store.add_event("job-1", {"event": "second"})
    store.add_event("job-1", {"event": "third"})
    end = time.monotonic() + 60
    while store.db.one("SELECT count(*) AS n FROM events")["n"] < 3 and time.monotonic() < end:  # type: ignore[index]
        time.sleep(0.01)
    rows = store.db.all("SELECT document FROM events ORDER BY number")
    assert [row["document"] for row in rows] == ['{"event":"first"}', '{"event":"second"}', '{"event":"third"}']


@pytest.mark.parametrize("huge", [2**63, 2**64 - 1, -(2**63) - 1])
def test_a_number_that_no_column_takes_is_refused_and_costs_nobody_elses_metrics(opener: Opener, huge: int) -> None:
    store = opener()
    store.add_job(job())
    with store.db._lock:  # all of it waits for the same commit
        store.add_metrics("job-1", "a", [{"key": "loss", "value": 1.0}], 2**63 - 1)
        with pytest.raises(TypeError, match="64 bits"):
            store.add_metrics("job-1", "b", [], huge)
        store.add_event("job-1", {"event": "round"})
    assert store.metrics_at("job-1", "a") == 2**63 - 1
    assert [entry["key"] for entry in store.metrics("job-1")] == ["loss"]
    assert [entry["event"] for _, entry in store.events("job-1", 0)] == ["round"]
    with pytest.raises(TypeError, match="64 bits"):
        store.db.run("UPDATE metrics_at SET at = ?", huge)


def test_many_threads_share_a_store(opener: Opener) -> None:
    store = opener()

    def work(name: str) -> None:
        for number in range(20):
            with store.tx():
                store.set_site("job-1", name, str(number))
                store.add_event("job-1", {"event": name})

    threads = [threading.Thread(target=work, args=(f"site-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {state for state, _ in store.sites("job-1").values()} == {"19"}
    assert len(store.events("job-1", 0)) == 80


def test_names_are_ordered_by_their_bytes_whatever_the_locale(opener: Opener) -> None:
    store = opener()
    for name in ("b", "a-1", "B", "a", "a1"):
        store.set_site("job-1", name, "accepted")
    assert list(store.sites("job-1")) == ["B", "a", "a-1", "a1", "b"]


def test_a_late_result_is_kept_for_its_site_the_newest_counts(opener: Opener) -> None:
    store = opener()
    assert store.late("job-1", "a") is None
    store.bank(Late("job-1", "a", "t1", 1, 0, "train", {"m": 1}, b"x" * 32))
    store.bank(Late("job-1", "a", "t2", 2, 0, "train", {"m": 2}, None))
    assert store.late("job-1", "a") == Late("job-1", "a", "t2", 2, 0, "train", {"m": 2}, None)
    store.bank(Late("job-1", "a", "t2", 2, 0, "train", {}, None, used=True))
    found = store.late("job-1", "a")
    assert found is not None
    assert found.used


def test_a_deleted_job_leaves_nothing_and_others_stay(opener: Opener) -> None:
    store = opener()
    for name in ("job-1", "job-2"):
        store.add_job(job(name))
        store.set_site(name, "a", "accepted")
        store.add_metrics(name, "a", [{"key": "k", "value": 1}], at=5)
        store.add_event(name, {"event": "e"})
        store.commit(Boundary(name, 0, {}, None, {}, 1.0))
        store.bank(Late(name, "a", "t", 0, 0, "train", {}, None))
    store.open_call(*call())
    assert store.delete_job("job-1")
    assert not store.delete_job("job-1")
    assert [entry.id for entry in store.jobs()] == ["job-2"]
    assert (store.sites("job-1"), store.events("job-1", 0), store.metrics("job-1")) == ({}, [], [])
    assert (store.tasks("job-1", 0, 0), store.last_boundary("job-1"), store.metrics_at("job-1", "a")) == ([], None, 0)
    assert store.late("job-1", "a") is None
    assert len(store.events("job-2", 0)) == len(store.metrics("job-2")) == 1


def test_a_row_and_the_blob_it_names_are_one_transaction(opener: Opener, tmp_path: Path) -> None:
    store = opener()
    blobs = BlobStore(tmp_path, store.db)
    staged = blobs.stage_bytes(b"x" * 200_000)

    def fails() -> None:
        with store.tx():
            blob = blobs.register(*staged, "job:job-1:task:t")
            store.answer("t", {}, blob)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert not blobs.has(staged[0].id)
    with store.tx():
        store.add_job(job())
        blobs.register(*blobs.stage_bytes(b"y" * 200_000), "job:job-1:task:t")
    blobs.drop_refs("job:job-1:")
    assert blobs.collect() == 1
    incoming = blobs.receive(of_bytes(b"z" * 100_000), "job:job-1:a")
    assert incoming is not None
    assert blobs.receive(incoming.manifest, "job:job-1:b") is incoming
    incoming.writer(0, 1).take(b"z" * 100_000)
    blobs.finish(incoming)
    assert blobs.read(incoming.manifest.id) == b"z" * 100_000
    blobs.drop_refs("job:job-1:a")
    assert blobs.collect() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_state_of_the_first_schema_is_brought_up_to_date(kind: str, request, tmp_path: Path) -> None:
    """What the first version wrote is there after the migration, and metrics are still in their order."""
    url = None if kind == "sqlite" else request.getfixturevalue("postgres_url")
    old = SqlState(Postgres(url, MIGRATIONS[:1]) if url else Sqlite(tmp_path / "hub.db", MIGRATIONS[:1]))
    old.add_job(job())
    for value in (3.0, 1.0, 2.0):
        old.db.run("INSERT INTO metrics VALUES ('job-1', 'a', 'loss', ?, 1, 0, 5.0)", value)
    old.close()
    store = SqlState(Postgres(url, MIGRATIONS) if url else Sqlite(tmp_path / "hub.db", MIGRATIONS))
    assert store.job("job-1") is not None
    assert [row["value"] for row in store.metrics("job-1")] == [3.0, 1.0, 2.0]
    store.add_metrics("job-1", "a", [{"key": "loss", "value": 4}])
    assert store.metrics("job-1")[-1]["value"] == 4.0
    store.close()


def test_a_state_of_a_newer_version_is_left_alone(opener: Opener, monkeypatch) -> None:
    monkeypatch.setattr("fl_runtime.hub.store.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE new (a TEXT)"))
    opener().close()
    monkeypatch.undo()
    with pytest.raises(FlError, match="newer version") as caught:
        opener()
    assert caught.value.next_step == "pip install --upgrade fedspan"


def test_a_migration_that_breaks_off_has_not_happened(tmp_path: Path) -> None:
    Sqlite(tmp_path / "a.db", ["CREATE TABLE one (a TEXT)"]).close()
    with pytest.raises(sqlite3.Error):
        Sqlite(tmp_path / "a.db", ["CREATE TABLE one (a TEXT)", "CREATE TABLE two (a TEXT); CREATE TABLE one (a TEXT)"])
    again = Sqlite(tmp_path / "a.db", ["CREATE TABLE one (a TEXT)", "CREATE TABLE two (a TEXT)"])
    assert again.all("SELECT * FROM two") == []
