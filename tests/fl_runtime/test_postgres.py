"""What is PostgreSQL's alone: one server at a time, a database that goes away, words without passwords."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import Server
from state_samples import job

from fl_runtime.errors import BusyError, FlError, StorageError
from fl_runtime.hub.schema import MIGRATIONS
from fl_runtime.hub.store import open_store
from fl_runtime.postgres import Postgres


def test_one_server_at_a_time_works_with_a_database(postgres_url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fl_runtime.postgres._LOCK_WAIT_S", 0.2)
    first = open_store(tmp_path, postgres_url)
    with pytest.raises(BusyError, match="Another server works with this database"):
        open_store(tmp_path, postgres_url)
    first.close()
    open_store(tmp_path, postgres_url).close()


def test_a_folder_and_a_database_that_do_not_belong_together_are_refused(postgres_url: str, tmp_path: Path) -> None:
    """Else start-up would take the folder's blobs for left-overs."""
    (one := tmp_path / "one").mkdir()
    (other := tmp_path / "other").mkdir()
    store = open_store(one, postgres_url)
    store.add_job(job())
    store.close()
    with pytest.raises(FlError, match="do not belong together"):
        open_store(other, postgres_url)
    with pytest.raises(FlError, match="lies in a PostgreSQL database"):
        open_store(one)
    open_store(other).close()
    with pytest.raises(FlError, match="lies in SQLite"):
        open_store(other, postgres_url)
    open_store(one, postgres_url).close()


def test_a_database_server_that_restarts_costs_the_transaction_it_cut_off(
    postgres_server: Server, postgres_url: str, tmp_path: Path
) -> None:
    store = open_store(tmp_path, postgres_url)
    store.add_job(job())

    def cut_off() -> None:
        with store.tx():
            store.set_job("job-1", "RUNNING")
            postgres_server.stop("immediate")
            postgres_server.start()

    with pytest.raises(StorageError):
        cut_off()
    found = store.job("job-1")
    assert found is not None
    assert found.state == "QUEUED"
    postgres_server.stop("immediate")
    store.add_event("job-1", {"event": "kept until the database is back"})
    with pytest.raises(StorageError, match="can't be used"):
        store.set_job("job-1", "RUNNING")
    postgres_server.start()
    store.set_job("job-1", "RUNNING")
    assert len(store.events("job-1", 0)) == 1
    store.close()


def test_a_database_that_another_server_took_meanwhile_is_waited_for(
    postgres_server: Server, postgres_url: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("fl_runtime.postgres._LOCK_WAIT_S", 0.2)
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    store = open_store(tmp_path / "one", postgres_url)
    store.add_job(job())
    postgres_server.stop("immediate")
    postgres_server.start()
    other = Postgres(postgres_url, MIGRATIONS)
    for _ in range(2):
        with pytest.raises(StorageError, match="Another server works with this database"):
            store.set_job("job-1", "RUNNING")
        with pytest.raises(StorageError, match="Another server works with this database"):
            store.job("job-1")
    other.close()
    assert store.set_job("job-1", "RUNNING")
    store.close()


def test_a_store_that_is_none_is_told_and_passwords_are_not(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(FlError, match="'mysql' is no kind of store"):
        open_store(tmp_path, "mysql://x")
    with pytest.raises(StorageError) as caught:
        open_store(tmp_path, "postgresql://ana:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
    assert "ana@127.0.0.1:1" in str(caught.value)
