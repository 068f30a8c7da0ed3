"""Blobs on their way in: breaks, power cuts, damaged or foreign bytes, several senders at once."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blob_kit import content, feed, store

from fl_runtime.blobs import BLOB_SCHEMA, BlobStore, of_bytes
from fl_runtime.db import Sqlite
from fl_runtime.errors import ProtocolError, StorageError
from fl_runtime.names import CHUNK, LEAF


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
