"""Bundles: the same files give the same digest, and nothing leaves its folder."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from fl_runtime.errors import JobSpecError
from fl_runtime.job import bundle
from fl_runtime.job.bundle import pack, unpack


def folder(path: Path) -> Path:
    (path / "lib").mkdir(parents=True)
    (path / "job.yml").write_text("name: x\n")
    (path / "lib/tool.sh").write_text("#!/bin/sh\n")
    (path / "lib/tool.sh").chmod(0o755)
    (path / "__pycache__").mkdir()
    (path / "__pycache__/x.pyc").write_bytes(b"x")
    return path


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    (two / "job.yml").touch()
    assert pack(one) == pack(two)
    (two / "job.yml").write_text("name: y\n")
    assert pack(one) != pack(two)


def test_a_bundle_comes_out_as_it_went_in(tmp_path: Path) -> None:
    unpack(pack(folder(tmp_path / "in")), tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")) == [
        "job.yml",
        "lib",
        "lib/tool.sh",
    ]
    assert (tmp_path / "out/lib/tool.sh").stat().st_mode & stat.S_IXUSR


def test_links_do_not_travel(tmp_path: Path) -> None:
    made = folder(tmp_path / "in")
    (made / "link").symlink_to("/etc/passwd")
    with pytest.raises(JobSpecError, match="no links"):
        pack(made)


def archive(name: str, mode: int = stat.S_IFREG | 0o644, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        made.writestr(info, data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../up", "/etc/cron.d/x", "a/../../up", "..\\up", "a/../.."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobSpecError, match="would leave its folder"):
        unpack(archive(name), tmp_path / "deep/out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError):
        unpack(archive("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), tmp_path / "out")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED", 1000)
    with pytest.raises(JobSpecError, match="too large"):
        unpack(archive("big", data=b"0" * 2000), tmp_path / "out")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match="damaged"):
        unpack(b"no zip", tmp_path / "out")
