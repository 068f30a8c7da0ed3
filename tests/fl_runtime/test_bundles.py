"""Bundles: the same files give the same digest, and nothing leaves its folder."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from fl_runtime.errors import JobSpecError
from fl_runtime.job import bundle
from fl_runtime.job.bundle import job_folder, pack, unpack


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


def raw_name(name: bytes, data: bytes = b"x") -> bytes:
    """An archive whose entry has this name byte by byte (zipfile would mend it)."""
    made = archive("N" * len(name), data=data)
    return made.replace(b"N" * len(name), name)


@pytest.mark.parametrize(
    "name",
    ["../up", "/etc/cron.d/x", "a/../../up", "..\\up", "a/../..", "C:\\x", "C:x", "//host/x", "./../x", "a//../b"],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    for data in (archive(name), raw_name(name.encode())):
        with pytest.raises(JobSpecError, match=r"would leave its folder|name of a device"):
            unpack(data, tmp_path / "deep/out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["CON", "aux.txt", "lib/nul", "COM1.log", "a/LPT9", "con .txt"])
def test_the_name_of_a_device_is_refused_when_packing_and_unpacking(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobSpecError, match="name of a device"):
        unpack(archive(name), tmp_path / "out")
    made = folder(tmp_path / "in")
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).write_text("x")
    with pytest.raises(JobSpecError, match="name of a device"):
        pack(made)


@pytest.mark.parametrize("name", [b"a\nb", b"\x00a", b".", b"./", b"x" * 300, b"a/" * 500 + b"b"])
def test_what_is_no_name_of_a_file_is_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(JobSpecError):
        unpack(raw_name(name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def several(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in entries:
            made.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a/b", "a//b"), ("a", "a/b"), ("a/b/c", "a/b"), ("a", "a/")]
)
def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(JobSpecError, match="twice"):
        unpack(several(*((name, b"") for name in names)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError):
        unpack(archive("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), tmp_path / "out")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED", 1000)
    with pytest.raises(JobSpecError, match="too large"):
        unpack(archive("big", data=b"0" * 2000), tmp_path / "out")


def test_an_archive_that_lies_about_its_sizes_is_stopped_while_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("big", b"0" * 50_000_000)
    small, big = (10).to_bytes(4, "little"), (50_000_000).to_bytes(4, "little")
    lying = buffer.getvalue().replace(big, small)
    assert lying != buffer.getvalue()
    with pytest.raises(JobSpecError):
        unpack(lying, tmp_path / "out")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 5_000_000
    monkeypatch.setattr(bundle, "MAX_UNPACKED", 4_000_000)
    twice = several(("a", b"0" * 3_000_000), ("b", b"0" * 3_000_000))
    twice = twice.replace((3_000_000).to_bytes(4, "little") * 2, (1_000_000).to_bytes(4, "little") * 2)
    with pytest.raises(JobSpecError):
        unpack(twice, tmp_path / "other")


def test_a_table_of_contents_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Millions of entries of one byte: each would be an object of half a kilobyte before anybody could count them."""
    entry = archive("a", data=b"")
    at = entry.index(b"PK\x01\x02")
    row, tail = entry[at : entry.index(b"PK\x05\x06")], entry[entry.index(b"PK\x05\x06") :]
    rows = row * 400_000
    data = entry[:at] + rows + tail[:12] + len(rows).to_bytes(4, "little") + tail[16:]
    with pytest.raises(JobSpecError, match="table of contents"):
        unpack(data, tmp_path / "out")


def test_an_archive_with_a_password_or_of_another_method_is_refused(tmp_path: Path) -> None:
    plain = archive("a")
    locked = plain.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    assert locked != plain
    with pytest.raises(JobSpecError):
        unpack(locked, tmp_path / "out")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as made:
        made.writestr("a", b"x" * 1000)
    with pytest.raises(JobSpecError, match="deflate"):
        unpack(buffer.getvalue(), tmp_path / "other")


def test_a_zip_gives_the_job_of_its_folder(tmp_path: Path) -> None:
    made = folder(tmp_path / "in")
    plain, nested = tmp_path / "plain.zip", tmp_path / "nested.zip"
    with zipfile.ZipFile(plain, "w") as one, zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as two:
        for path in made.rglob("*"):
            one.write(path, path.relative_to(made))
            two.write(path, Path("my job") / path.relative_to(made))
        two.writestr("__MACOSX/._job.yml", b"x")
    for source in (made, plain, nested):
        with job_folder(source) as found:
            assert pack(found) == pack(made)
    with pytest.raises(JobSpecError, match="no such folder or zip"), job_folder(tmp_path / "none"):
        pass
    with pytest.raises(JobSpecError, match="damaged"), job_folder(made / "job.yml"):
        pass


def test_a_folder_that_is_a_link_does_not_travel(tmp_path: Path) -> None:
    made = folder(tmp_path / "in")
    (made / "etc").symlink_to("/etc")
    with pytest.raises(JobSpecError, match="no links"):
        pack(made)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match="damaged"):
        unpack(b"no zip", tmp_path / "out")
