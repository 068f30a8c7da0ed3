"""Where the hub's state lies: a SQLite file in its folder, or a PostgreSQL database."""

from __future__ import annotations

import secrets
from pathlib import Path

from fl_runtime.db import Sqlite
from fl_runtime.errors import FlError
from fl_runtime.hub.schema import MIGRATIONS
from fl_runtime.hub.sqlstate import SqlState


def open_store(state: Path, url: str | None = None) -> SqlState:
    """The state of the hub whose folder is `state`: its hub.db, or the PostgreSQL database at `url`.

    Raises:
        FlError: database and folder do not belong together (start-up would sweep the folder's blobs away), or the
            database is of a newer version.
        StorageError: the database does not answer.
        BusyError: another server works with the database.
    """
    mark, file = state / "store-id", state / "hub.db"
    if not url:
        if mark.exists() and not file.exists():
            raise FlError(
                "This server's state lies in a PostgreSQL database",
                why=f"{mark} says so",
                next_step="set FEDSPAN_STORE=postgresql://... (or `store:` in local/store.yml of its kit)",
            )
        return SqlState(Sqlite(file, MIGRATIONS))
    from fl_runtime.postgres import Postgres, is_postgres

    if not is_postgres(url):
        raise FlError(
            f"{url.partition(':')[0]!r} is no kind of store", next_step="give a URL that begins with postgresql://"
        )
    if file.exists():
        raise FlError(
            "This server's state lies in SQLite",
            why=f"{file} exists",
            next_step="start it without a store, or give it a new state folder",
        )
    store = SqlState(Postgres(url, MIGRATIONS))
    try:
        _belong_together(store, mark, state / "blobs")
    except BaseException:
        store.close()
        raise
    return store


def _belong_together(store: SqlState, mark: Path, blobs: Path) -> None:
    row = store.db.one("SELECT value FROM meta WHERE key = 'id'")
    here = mark.read_text().strip() if mark.exists() else None
    if row is not None and row["value"] == here:
        return
    has_files = blobs.is_dir() and any(blobs.iterdir())
    has_jobs = store.db.one("SELECT id FROM jobs LIMIT 1") is not None
    if has_files or has_jobs:
        whose = "holds the jobs of" if has_jobs else "is new to"
        raise FlError(
            "The database and the state folder do not belong together",
            why=f"the database {whose} another state folder than {mark.parent}",
            next_step="give the folder and the database that were used together, or two new ones",
        )
    known = row["value"] if row is not None else secrets.token_hex(16)
    mark.write_text(known + "\n")
    store.db.run("INSERT INTO meta VALUES ('id', ?) ON CONFLICT DO NOTHING", known)
