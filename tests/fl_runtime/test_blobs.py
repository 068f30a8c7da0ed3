"""Blobs: what is acknowledged is whole, on disk, and found again; what nobody refers to goes."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from blob_kit import content, feed, store

from fl_runtime.blobs import Manifest, of_bytes, of_file
from fl_runtime.errors import ProtocolError
from fl_runtime.names import LEAF


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
