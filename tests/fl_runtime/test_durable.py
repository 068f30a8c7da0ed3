"""Small files that no crash takes: written, synced, renamed, and the name synced too."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fl_runtime.durable import write_whole


def test_content_is_on_disk_before_its_name_and_the_name_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "file", []
    path.write_bytes(b"old")
    path.chmod(0o644)
    fsync = os.fsync

    def noted(fd: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        steps.append((kind, path.read_bytes()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    write_whole(path, b"new")
    assert steps == [("file", b"old"), ("folder", b"new")]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_can_not_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]
