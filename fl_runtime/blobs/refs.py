"""Who refers to which blob. Owners are names whose parts are set apart by `:`, such as `job:JOB:task:TASK`."""

from __future__ import annotations

from fl_runtime.db import Database


class References:
    """The table `blob_refs`. Every method may be called from any thread; those that write raise StorageError."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def owned(self, owner: str) -> list[bytes]:
        """What this owner refers to."""
        return [bytes(row["blob"]) for row in self._db.all("SELECT blob FROM blob_refs WHERE owner = ?", owner)]

    def refs(self, owner: str) -> list[tuple[str, bytes]]:
        """What this owner and all under it (`owner:...`) refer to: (whose, blob)."""
        sql = "SELECT owner, blob FROM blob_refs WHERE owner = ? OR (owner >= ? AND owner < ?)"
        return [(str(row["owner"]), bytes(row["blob"])) for row in self._db.all(sql, owner, f"{owner}:", f"{owner};")]

    def add_ref(self, blob: bytes, owner: str) -> None:
        self._db.run("INSERT INTO blob_refs (blob, owner) VALUES (?, ?) ON CONFLICT DO NOTHING", blob, owner)

    def owners(self, blob: bytes) -> list[str]:
        """Who refers to it."""
        return [str(row["owner"]) for row in self._db.all("SELECT owner FROM blob_refs WHERE blob = ?", blob)]

    def drop_refs(self, owner_prefix: str) -> None:
        """Drop the references of one owner (or, ending in `:`, of all under it)."""
        if owner_prefix.endswith(":"):
            end = owner_prefix[:-1] + ";"  # ";" follows ":" in ASCII
            self._db.run("DELETE FROM blob_refs WHERE owner >= ? AND owner < ?", owner_prefix, end)
        else:
            self._db.run("DELETE FROM blob_refs WHERE owner = ?", owner_prefix)

    def drop_all(self, owner: str) -> None:
        """Drop the references of an owner and of all under it."""
        self.drop_refs(owner)
        self.drop_refs(f"{owner}:")
