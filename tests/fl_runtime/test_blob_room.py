"""Room for blobs: quota, full disks, and files that are used again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from blob_kit import content, store

from fl_runtime.blobs import BLOB_SCHEMA, BlobStore, of_bytes
from fl_runtime.blobs.pool import Pool
from fl_runtime.db import Sqlite
from fl_runtime.errors import DiskFullError, QuotaError
from fl_runtime.names import LEAF


def test_a_freed_file_is_written_over_but_never_while_somebody_has_it_mapped(tmp_path: Path) -> None:
    import mmap

    blobs, first = store(tmp_path), content(300_000)
    blob = blobs.put(first, "a")
    inode = blobs.path(blob).stat().st_ino
    with open(blobs.path(blob), "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # a script's parameters
    blobs.drop_refs("a")
    blobs.collect(0)
    second = blobs.put(content(300_000, 1), "b")
    assert blobs.path(second).stat().st_ino != inode
    assert mapped[:] == first
    mapped.close()
    third = blobs.put(content(200_000, 2), "c")
    assert blobs.path(third).stat().st_ino == inode
    assert blobs.read(third) == content(200_000, 2)


def test_a_quota_is_kept_and_says_so_before_anything_is_written(tmp_path: Path) -> None:
    limit = 10 * LEAF
    blobs = BlobStore(tmp_path, Sqlite(tmp_path / "test.db", [BLOB_SCHEMA]), lambda: limit)
    blob = blobs.put(content(6 * LEAF), "a")
    with pytest.raises(QuotaError, match="disk quota is exceeded") as told:
        blobs.new_spool_file(5 * LEAF)
    assert "disk_quota" in (told.value.next_step or "")
    assert "46.1 MB" in (told.value.why or "")
    assert "41.9 MB are allowed" in (told.value.why or "")
    with pytest.raises(QuotaError):
        blobs.receive(of_bytes(content(5 * LEAF, 1)), "b")
    assert list(blobs.spool.iterdir()) == list(blobs.incoming_folder.iterdir()) == []
    limit = 12 * LEAF
    incoming = blobs.receive(of_bytes(content(5 * LEAF, 1)), "b")  # it is read anew each time
    with pytest.raises(QuotaError):
        blobs.new_spool_file(2 * LEAF)  # what is on its way counts as a whole
    incoming.close()
    blobs.abandon("b")
    blobs.drop_refs("a")
    blobs.collect(0)
    assert not blobs.has(blob)
    blobs.new_spool_file(12 * LEAF)  # files that wait to be used again give way
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.parent.name == "pool") == 0


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(DiskFullError, match="disk is full") as told:
        blobs.new_spool_file(free + 1)
    assert "df -h" in (told.value.next_step or "")
    assert list(blobs.spool.iterdir()) == []


def test_files_that_wait_to_be_used_again_stay_under_their_limit(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", limit=250)
    for size in (100, 120, 110):
        (tmp_path / "file").write_bytes(b"x" * size)
        pool.give(tmp_path / "file")
    assert pool.size() == 210  # the largest went
    pool.shrink(0)
    assert list((tmp_path / "pool").iterdir()) == []


def test_a_jobs_program_finds_nothing_of_anybody_elses_in_a_file_that_it_is_given(tmp_path: Path) -> None:
    """Also not of its own job's that was written by us: a model behind the filters, another site's result."""
    blobs, data = store(tmp_path), content(LEAF)
    mine = blobs.new_spool_file(LEAF, "a")
    mine.write_bytes(data)
    inode = mine.stat().st_ino
    blobs.put(data, "x")
    blobs.drop_refs("x")
    blobs.collect(0.0)  # of ours, now in the pool
    for job in ("a", "b"):
        fresh = blobs.new_spool_file(LEAF, job)
        assert fresh.read_bytes() == bytes(LEAF)
    blobs._pool.give(mine)
    again = blobs.new_spool_file(LEAF, "a")
    assert again.stat().st_ino == inode  # what it has written itself is used again
    blobs._pool.give(again)
    ours = [blobs.new_spool_file(LEAF) for _ in range(2)]  # everything that is in the pool
    assert inode in {path.stat().st_ino for path in ours}
    for path in ours:
        path.write_bytes(data)
        blobs._pool.give(path)
    blobs._pool = Pool(tmp_path / "pool")  # after a restart, too
    assert blobs.new_spool_file(LEAF, "a").read_bytes() == bytes(LEAF)


@pytest.mark.parametrize("room", [True, False], ids=["cleared", "not cleared"])
def test_a_file_that_a_full_disk_did_not_take_may_be_handed_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """Whether or not what was there of it could be cleared away meanwhile."""
    data, database = content(70_000), Sqlite(tmp_path / "test.db", [BLOB_SCHEMA])
    blobs = BlobStore(tmp_path, database)
    path = blobs.new_spool_file(len(data))
    path.write_bytes(data)

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr("fl_runtime.blobs.shelf.sync_folder", full)
        if not room:
            now.setattr(blobs, "_bury_quietly", lambda: None)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                blobs.stage_file(path)
    staged = blobs.stage_file(path)
    with blobs.registering(staged) as register:
        register(staged, "a")
    blobs.collect(0)
    assert blobs.read(of_bytes(data).id) == data
    assert list(blobs.spool.iterdir()) == []
    blobs.drop_refs("a")
    blobs.collect(0)
    assert list(blobs.folder.iterdir()) == []
