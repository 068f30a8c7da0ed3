"""Blobs: what is acknowledged is whole, on disk, and found again; what broke off goes on at the missing leaves."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fl_runtime.blobs import BLOB_SCHEMA, BlobStore, Manifest, of_bytes, of_file
from fl_runtime.blobs.pool import Pool
from fl_runtime.db import Sqlite
from fl_runtime.errors import DiskFullError, ProtocolError, QuotaError, StorageError
from fl_runtime.names import CHUNK, LEAF


def store(folder: Path) -> BlobStore:
    return BlobStore(folder, Sqlite(folder / "test.db", [BLOB_SCHEMA]))


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def feed(incoming, data: bytes, first: int, count: int) -> None:
    writer = incoming.writer(first, count)
    for at in range(first * LEAF, min((first + count) * LEAF, len(data)), CHUNK):
        writer.take(data[at : min(at + CHUNK, len(data))])


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF + 5])
def test_a_blob_comes_back_as_it_was_and_has_one_id(tmp_path: Path, size: int) -> None:
    blobs, data = store(tmp_path), content(size)
    blob = blobs.put(data, "test")
    assert blobs.read(blob) == data
    assert of_bytes(data).id == blob
    (tmp_path / "file").write_bytes(data)
    assert of_file(tmp_path / "file").id == blob
    assert (blobs.inline(blob) is not None) == (size <= 64 * 1024)


def test_an_id_depends_on_every_bit_and_on_the_length() -> None:
    data = bytearray(content(LEAF + 100))
    seen = {of_bytes(bytes(data)).id, of_bytes(bytes(data[:-1])).id, of_bytes(bytes(data) + b"\0").id}
    data[LEAF + 50] ^= 1
    seen.add(of_bytes(bytes(data)).id)
    assert len(seen) == 4


def test_a_break_costs_only_the_leaves_that_were_not_there(tmp_path: Path) -> None:
    data = content(5 * LEAF + 1000)
    manifest = of_bytes(data)
    blobs = store(tmp_path)
    incoming = blobs.receive(manifest, "a")
    feed(incoming, data, 1, 2)
    writer = incoming.writer(4, 1)
    writer.take(data[4 * LEAF : 4 * LEAF + CHUNK])  # and the link breaks
    incoming.journal()
    again = store(tmp_path).receive(manifest, "a")  # a new life of the process
    assert again.missing() == [(0, 1), (3, 3)]
    feed(again, data, 0, 1)
    feed(again, data, 3, 3)
    assert again.complete


def test_what_was_not_synced_counts_as_missing_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever offers it again, and whenever."""
    data, synced = content(4 * LEAF), []
    manifest = of_bytes(data)
    incoming = store(tmp_path).receive(manifest, "a")
    feed(incoming, data, 0, 1)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    incoming.journal()
    assert len(synced) == 1
    feed(incoming, data, 1, 2)
    incoming.add_owner("b")
    assert len(synced) == 1
    again = store(tmp_path).receive(manifest, "b")
    assert again.missing() == [(1, 3)]
    assert again.owners == {"a", "b"}


def test_a_received_blob_is_one_and_is_not_received_twice(tmp_path: Path) -> None:
    data = content(LEAF + 7)
    blobs, manifest = store(tmp_path), of_bytes(content(LEAF + 7))
    incoming = blobs.receive(manifest, "a")
    feed(incoming, data, 0, 2)
    blobs.finish(incoming)
    assert blobs.read(manifest.id) == data
    assert blobs.receive(manifest, "b") is None
    blobs.drop_refs("a")
    assert blobs.collect(0) == 0
    blobs.drop_refs("b")
    assert blobs.collect(0) == 1
    assert not blobs.path(manifest.id).exists()


@pytest.mark.parametrize("size", [60_000, 70_000, LEAF + 7])
def test_what_can_not_be_noted_on_a_full_disk_is_finished_later(tmp_path: Path, size: int) -> None:
    data, owner = content(size), "a" * 50_000  # larger than what a database has free by chance
    database = Sqlite(tmp_path / "test.db", [BLOB_SCHEMA])
    blobs, manifest = BlobStore(tmp_path, database), of_bytes(data)
    incoming = blobs.receive(manifest, owner)
    feed(incoming, data, 0, manifest.count)
    database.run("PRAGMA max_page_count = 1")  # as many as it has
    for _ in range(2):
        with pytest.raises(StorageError, match="full"):
            blobs.finish(incoming)
    assert not blobs.has(manifest.id)
    assert blobs.incoming(manifest.id) is incoming
    assert blobs.receive(manifest, owner) is incoming  # who offers it again is asked for nothing
    assert incoming.missing() == []
    database.run("PRAGMA max_page_count = 1000000")
    blobs.finish(incoming)
    assert blobs.incoming(manifest.id) is None
    assert blobs.read(manifest.id) == data
    blobs.drop_refs(owner)
    assert blobs.collect(0) == 1
    assert not blobs.path(manifest.id).exists()


def test_what_was_never_noted_and_is_not_wanted_any_more_leaves_no_file(tmp_path: Path) -> None:
    data = content(LEAF)
    database = Sqlite(tmp_path / "test.db", [BLOB_SCHEMA])
    blobs, manifest = BlobStore(tmp_path, database), of_bytes(data)
    incoming = blobs.receive(manifest, "a" * 50_000)
    feed(incoming, data, 0, 1)
    database.run("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="full"):
        blobs.finish(incoming)
    assert blobs.path(manifest.id).exists()
    database.run("PRAGMA max_page_count = 1000000")
    blobs.abandon("a")
    blobs.collect(0)
    assert not blobs.path(manifest.id).exists()
    assert blobs.put(data, "b") == manifest.id  # and the same content may come again, and go
    blobs.drop_refs("b")
    assert blobs.collect(0) == 1
    assert not blobs.path(manifest.id).exists()


def test_a_damaged_leaf_is_noticed_and_does_not_count(tmp_path: Path) -> None:
    data = content(2 * LEAF)
    incoming = store(tmp_path).receive(of_bytes(data), "a")
    damaged = bytearray(data)
    damaged[100] ^= 4
    with pytest.raises(ProtocolError, match="damaged"):
        feed(incoming, bytes(damaged), 0, 2)
    assert incoming.missing() == [(0, 2)]


def test_a_leaf_that_is_here_is_not_written_over(tmp_path: Path) -> None:
    """By zeros under its number, which are refused; nor by who was late with the same."""
    data = content(3 * LEAF)
    blobs, manifest = store(tmp_path), of_bytes(data)
    incoming = blobs.receive(manifest, "a")
    feed(incoming, data, 0, 1)
    with pytest.raises(ProtocolError, match="damaged"):
        feed(incoming, bytes(3 * LEAF), 0, 1)
    late, other = incoming.writer(1, 1), incoming.writer(2, 1)
    late.take(data[LEAF : LEAF + CHUNK])
    other.take(bytes(CHUNK))  # never more of it
    feed(incoming, data, 1, 2)
    blobs.finish(incoming)
    for at in range(LEAF + CHUNK, 2 * LEAF, CHUNK):
        late.take(data[at : at + CHUNK])
    assert late.leaves == 1
    assert blobs.read(manifest.id) == data


@pytest.mark.parametrize("size", [[500], [1, 100_000, 70_000, 3], [CHUNK, 10], [LEAF]])
def test_chunks_of_any_size_are_collected_to_leaves_without_an_object_for_each(tmp_path: Path, size: list[int]) -> None:
    data = content(LEAF + 12_345)
    blobs, manifest = store(tmp_path), of_bytes(data)
    incoming = blobs.receive(manifest, "a")
    writer, at, most, sizes = incoming.writer(0, 2), 0, 0, itertools.cycle(size)
    while at < len(data):
        end = min(at + next(sizes), LEAF if at < LEAF else len(data))
        writer.take(data[at:end])
        at, most = end, max(most, len(writer._pieces))
    blobs.finish(incoming)
    assert blobs.read(manifest.id) == data
    assert most <= 1 + LEAF // (64 * 1024)


def test_what_comes_again_is_thrown_away_and_the_first_one_stays(tmp_path: Path) -> None:
    """Somebody sends what others have here already: their file is not replaced."""
    data = content(LEAF + 7)
    blobs, manifest = store(tmp_path), of_bytes(data)
    blobs.put(data, "best")
    inode = blobs.path(manifest.id).stat().st_ino
    incoming = blobs.receive(manifest, "a", sender="site-1", known=False)
    feed(incoming, data, 0, 2)
    blobs.finish(incoming)
    assert blobs.path(manifest.id).stat().st_ino == inode
    assert sorted(blobs.owners(manifest.id)) == ["a", "best"]
    assert list(blobs.incoming_folder.iterdir()) == []
    blobs.drop_refs("best")
    assert blobs.collect(0) == 0
    assert blobs.read(manifest.id) == data
    blobs.drop_refs("a")
    assert blobs.collect(0) == 1
    assert not blobs.path(manifest.id).exists()


@pytest.mark.parametrize("way", ["received", "put"])
def test_what_was_synced_takes_the_place_of_what_was_not(tmp_path: Path, way: str) -> None:
    """The row says from then on that a reboot does not take it."""
    data = content(LEAF)
    blobs, manifest = store(tmp_path), of_bytes(data)
    first = blobs.receive(manifest, "a", durable=False)
    feed(first, data, 0, 1)
    blobs.finish(first)
    inode = blobs.path(manifest.id).stat().st_ino
    if way == "put":
        blobs.put(data, "b")
    else:
        second = blobs.receive(manifest, "b", sender="site-1", known=False)
        feed(second, data, 0, 1)
        blobs.finish(second)
    assert blobs.path(manifest.id).stat().st_ino != inode
    assert blobs.read(manifest.id) == data


@pytest.mark.parametrize("pieces", [[b"x" * 101], [b"x" * 100, b"y"], [b""]])
def test_bytes_that_were_not_announced_are_refused(tmp_path: Path, pieces: list[bytes]) -> None:
    writer = store(tmp_path).receive(of_bytes(b"x" * 100), "a").writer(0, 1)

    def take() -> None:
        for piece in pieces:
            writer.take(piece)

    with pytest.raises(ProtocolError):
        take()


@pytest.mark.parametrize(("first", "count"), [(0, 0), (1, 1), (0, 2), (-1, 1)])
def test_a_range_outside_of_the_blob_is_refused(tmp_path: Path, first: int, count: int) -> None:
    with pytest.raises(ProtocolError):
        store(tmp_path).receive(of_bytes(b"x" * 100), "a").writer(first, count)


@pytest.mark.parametrize(
    ("length", "leaves"), [(-1, b""), (1, b""), (0, b"x" * 32), (LEAF + 1, b"x" * 32), (5, b"x" * 31)]
)
def test_a_manifest_that_does_not_add_up_is_refused(length: int, leaves: bytes) -> None:
    with pytest.raises(ProtocolError):
        Manifest(length, leaves)


def test_files_without_a_row_are_swept_at_the_start(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    kept = blobs.put(content(100_000), "test")
    for folder in (blobs.folder, blobs.spool, tmp_path / "incoming"):
        (folder / "left").write_bytes(b"x")
    again = store(tmp_path)
    assert again.read(kept) == content(100_000)
    assert [path.name for path in tmp_path.rglob("left")] == []


def test_a_row_without_its_file_does_not_tell_of_the_next_file(tmp_path: Path) -> None:
    """Two crashes: when the blob had its name and no row yet, and when its next file had just been made."""
    data = content(2 * LEAF)
    manifest = of_bytes(data)
    incoming = store(tmp_path).receive(manifest, "a")
    feed(incoming, data, 0, 1)
    incoming.journal()
    incoming.path.unlink()
    store(tmp_path)
    incoming.path.write_bytes(bytes(2 * LEAF))
    assert store(tmp_path).receive(manifest, "a").missing() == [(0, 2)]


def test_references_of_a_job_go_together(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    one, two = blobs.put(b"one", "job:a:task:1"), blobs.put(b"two", "job:ab:task:1")
    blobs.add_ref(one, "job:a:model:3")
    blobs.drop_refs("job:a:task:")
    assert blobs.collect(0) == 0
    blobs.drop_refs("job:a:")
    assert blobs.collect(0) == 1
    assert not blobs.has(one)
    assert blobs.has(two)


def test_what_is_being_stored_is_not_collected(tmp_path: Path) -> None:
    """Between staging and registering, the same content may lose its last reference."""
    blobs, data = store(tmp_path), content(100_000)
    blobs.put(data, "old")
    staged = blobs.stage_bytes(data)
    blobs.drop_refs("old")
    assert blobs.collect(0) == 0
    blob = blobs.register(*staged, "new")
    assert blobs.read(blob) == data


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


def test_what_was_not_synced_is_forgotten_after_a_reboot(tmp_path: Path) -> None:
    import sqlite3

    blobs, data = store(tmp_path), content(LEAF)
    manifest = of_bytes(data)
    incoming = blobs.receive(manifest, "a", durable=False)
    feed(incoming, data, 0, 1)
    blobs.finish(incoming)
    assert store(tmp_path).read(manifest.id) == data
    with sqlite3.connect(tmp_path / "test.db") as database:
        database.execute("UPDATE blobs SET boot = 'another'")
    assert not store(tmp_path).has(manifest.id)


def test_what_nobody_wants_any_more_is_abandoned(tmp_path: Path) -> None:
    data = content(2 * LEAF)
    blobs = store(tmp_path)
    feed(blobs.receive(of_bytes(data), "job:a:task:1"), data, 0, 1)
    again = store(tmp_path)
    again.abandon("job:b:")
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    again.abandon("job:a:")
    assert list((tmp_path / "incoming").iterdir()) == []


def test_half_of_what_was_not_synced_is_forgotten_after_a_reboot_and_resumed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(3 * LEAF)
    incoming = store(tmp_path).receive(of_bytes(data), "a", durable=False)
    feed(incoming, data, 0, 2)
    incoming.journal()
    assert store(tmp_path).receive(of_bytes(data), "a", durable=False).missing() == [(2, 1)]
    monkeypatch.setattr("fl_runtime.blobs.shelf.boot_id", lambda: "another")
    assert store(tmp_path).receive(of_bytes(data), "a", durable=False).missing() == [(0, 3)]


def test_a_file_stays_where_it_was_told_to_be_for_a_while_after_nobody_needs_it(tmp_path: Path) -> None:
    import time

    blobs, data = store(tmp_path), content(100_000)
    blob = blobs.put(data, "a")
    blobs.drop_refs("a")
    assert blobs.collect(2.0) == 1
    assert blobs.path(blob).read_bytes() == data  # somebody opens it just now
    end = time.monotonic() + 60
    while blobs.path(blob).exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not blobs.path(blob).exists()


def test_content_that_comes_back_before_its_file_has_gone_keeps_its_file(tmp_path: Path) -> None:
    blobs, data = store(tmp_path), content(100_000)
    blob = blobs.put(data, "a")
    blobs.drop_refs("a")
    blobs.collect(0.2)
    staged = blobs.stage_bytes(data)
    threading.Event().wait(0.5)
    assert blobs.register(*staged, "b") == blob
    assert blobs.read(blob) == data


def test_who_sends_the_same_goes_on_with_its_own_leaves_only_and_is_not_told_what_is_here(tmp_path: Path) -> None:
    """Knowing a manifest grants nothing: not the leaves of somebody else, nor that the content is known."""
    data = content(3 * LEAF)
    blobs, manifest = store(tmp_path), of_bytes(data)
    feed(blobs.receive(manifest, "a", sender="site-1", known=False), data, 0, 2)
    other = blobs.receive(manifest, "b", sender="site-2", known=False)
    assert other.missing() == [(0, 3)]
    mine = blobs.incoming(manifest.id, "site-1")
    assert mine.missing() == [(2, 1)]
    feed(mine, data, 2, 1)
    blobs.finish(mine)
    assert blobs.receive(manifest, "b", sender="site-2", known=False) is other
    feed(other, data, 0, 3)
    blobs.finish(other)
    blobs.drop_refs("a")
    assert blobs.collect(0) == 0
    assert blobs.read(manifest.id) == data


def test_ranges_that_come_at_once_make_one_blob(tmp_path: Path) -> None:
    data = content(8 * LEAF + 11)
    blobs, manifest = store(tmp_path), of_bytes(data)
    incoming = blobs.receive(manifest, "a")

    def part(first: int, count: int) -> None:
        feed(incoming, data, first, count)
        incoming.journal()
        if incoming.complete:
            blobs.finish(incoming)
            assert blobs.has(manifest.id)  # for each of them: what is acknowledged is there

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(part, (0, 2, 4, 6), (2, 2, 2, 3)))
    assert blobs.read(manifest.id) == data


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


def test_a_file_that_is_cut_while_it_is_hashed_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(9 * LEAF))
    stop = threading.Event()

    def cut() -> None:
        while not stop.is_set():
            os.truncate(path, 0)
            os.truncate(path, 9 * LEAF)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        for _ in range(20):
            with contextlib.suppress(ProtocolError):
                of_file(path)
    finally:
        stop.set()
        thread.join()


def test_what_is_abandoned_while_it_is_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job has ended meanwhile: neither a row without a file, nor a file without a row."""
    data, database = content(LEAF + 7), Sqlite(tmp_path / "test.db", [BLOB_SCHEMA])
    blobs, manifest = BlobStore(tmp_path, database), of_bytes(data)
    incoming = blobs.receive(manifest, "job:a:task:1")
    feed(incoming, data, 0, manifest.count)
    with monkeypatch.context() as now:
        now.setattr("fl_runtime.blobs.store.sync_folder", lambda _: blobs.abandon("job:a:"))
        blobs.finish(incoming)
    assert (blobs.has(manifest.id), blobs.owners(manifest.id), blobs.incoming(manifest.id)) == (False, [], None)
    blobs.collect(0)
    assert list(blobs.folder.iterdir()) == list(blobs.incoming_folder.iterdir()) == []
    feed(blobs.receive(manifest, "job:b:task:1"), data, 0, manifest.count)  # and it may come again
    blobs.finish(blobs.incoming(manifest.id))
    assert blobs.read(manifest.id) == data


@pytest.mark.parametrize("size", [1000, 70_000])
def test_who_abandons_and_who_finishes_at_once_leave_a_blob_or_none(tmp_path: Path, size: int) -> None:
    database = Sqlite(tmp_path / "test.db", [BLOB_SCHEMA])
    blobs = BlobStore(tmp_path, database)
    with ThreadPoolExecutor(2) as pool:
        for seed in range(40):
            data = content(size, seed)
            manifest = of_bytes(data)
            incoming = blobs.receive(manifest, "job:a:task:1")
            feed(incoming, data, 0, manifest.count)
            for done in (pool.submit(blobs.finish, incoming), pool.submit(blobs.abandon, "job:a:")):
                done.result(30)
            assert blobs.incoming(manifest.id) is None
            if blobs.has(manifest.id):
                assert blobs.read(manifest.id) == data
    blobs.drop_refs("job:a:")
    blobs.collect(0)
    assert list(blobs.folder.iterdir()) == list(blobs.incoming_folder.iterdir()) == []


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
