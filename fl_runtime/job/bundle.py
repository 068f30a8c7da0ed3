"""A job's bundle: its folder as a zip whose bytes depend on nothing but the files, and the way back, with care."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fl_runtime.errors import JobSpecError

MAX_PACKED = 256 * 1024 * 1024
MAX_UNPACKED = 1024 * 1024 * 1024
MAX_FILES = 10_000
_MAX_DIRECTORY = 4 * 1024 * 1024  # bytes of an archive's table of contents: what zipfile makes objects of at once
_MAX_PART, _MAX_NAME = 200, 900  # of a name's part, and of the whole: room for the folder that it goes to
JOB_FILES = ("job.yml", "job.yaml", "job.json")
_SKIPPED = {"__pycache__", ".git", ".venv", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".DS_Store"}
# Devices of Windows, with whatever extension: who unpacks a job there would write to them.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError)


def pack(folder: Path) -> bytes:
    """Zip a folder: sorted names, no times, no owners, so that the same files give the same digest.

    Raises:
        JobSpecError: a link or special file, a name that no site takes, too many files, or too large.
    """
    buffer = io.BytesIO()
    total = count = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for root, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            for name in folders:
                if (Path(root) / name).is_symlink():
                    raise _no_link((Path(root) / name).relative_to(folder).as_posix())
            for name in sorted(files):
                path = Path(root) / name
                if name in _SKIPPED or name.endswith(".pyc"):
                    continue
                mode = path.lstat().st_mode
                inside = path.relative_to(folder).as_posix()
                if not stat.S_ISREG(mode):
                    raise _no_link(inside)
                if why := _bad_name(inside):
                    raise JobSpecError(f"{inside!r} can't be part of a job", why=why, next_step="rename it")
                total += path.stat().st_size
                count += 1
                if total > MAX_UNPACKED or count > MAX_FILES:
                    raise JobSpecError(
                        f"{folder} is too large for a job",
                        why=f"at most {MAX_FILES} files and {MAX_UNPACKED >> 20} MiB; it is not the place for data",
                        next_step="declare data on the sites and name it in job.yml",
                    )
                info = zipfile.ZipInfo(inside, (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (0o755 if mode & 0o100 else 0o644) << 16
                archive.writestr(info, path.read_bytes())
    data = buffer.getvalue()
    if len(data) > MAX_PACKED:
        raise JobSpecError(f"{folder} is too large for a job", why=f"{len(data) >> 20} MiB packed")
    return data


def _no_link(inside: str) -> JobSpecError:
    return JobSpecError(f"{inside} can't be part of a job", why="only plain files travel, no links")


@contextlib.contextmanager
def job_folder(source: Path) -> Iterator[Path]:
    """A job as somebody has it, as a folder: itself, or what a zip holds, unpacked for the time being.

    A zip may hold the job's files at its top, or one folder with them.

    Raises:
        JobSpecError: neither a folder nor a zip with a job.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise JobSpecError(
            f"{source} is not a job", why="there is no such folder or zip", next_step="name a folder with job.yml"
        )
    size = source.stat().st_size
    if size > MAX_PACKED:
        raise JobSpecError(f"{source} is too large for a job", why=f"{size >> 20} MiB packed")
    with tempfile.TemporaryDirectory(prefix="fedspan-job-") as scratch:
        folder = Path(scratch) / "job"
        unpack(source.read_bytes(), folder)
        tops = [path for path in folder.iterdir() if path.name not in ("__MACOSX", *_SKIPPED)]
        if not any((folder / name).is_file() for name in JOB_FILES) and len(tops) == 1 and tops[0].is_dir():
            folder = tops[0]
        yield folder


def unpack(data: bytes, target: Path) -> None:
    """Unpack into a new folder; nothing is written outside of it, whatever the archive says.

    Sizes are checked before, by what the archive says, and while it is unpacked, by what really comes out.

    Raises:
        JobSpecError: a path that leaves the folder, a link, a name twice, or more than the limits.
    """
    if len(data) > MAX_PACKED:
        raise JobSpecError("The job's bundle is too large", why=f"{len(data)} bytes")
    try:
        archive = zipfile.ZipFile(_Bounded(data))
    except _DAMAGED as error:
        raise JobSpecError("The job's bundle is damaged", why=str(error)) from None
    with archive:
        wanted = _checked(archive.infolist())
        target.mkdir(parents=True, mode=0o700)
        budget = MAX_UNPACKED
        for parts, entry in wanted:
            path = target.joinpath(*parts)
            if _is_folder(entry):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(entry) as source, open(path, "xb") as copy:
                    while piece := source.read(1 << 20):
                        budget -= len(piece)
                        if budget < 0:  # sizes in the directory of a zip may lie
                            raise JobSpecError("The job's bundle is too large")
                        copy.write(piece)
            except _DAMAGED as error:
                raise JobSpecError("The job's bundle is damaged", why=f"{entry.filename!r}: {error}") from None
            if (entry.external_attr >> 16) & 0o100:
                path.chmod(0o755)


class _Bounded(io.BytesIO):
    """Bytes of which only so many are read at once: whoever asks for more reads an archive's huge directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.getbuffer().nbytes - self.tell())
        if (left if size is None or size < 0 else min(size, left)) > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("its table of contents is too long")
        return super().read(size)


def _checked(entries: list[zipfile.ZipInfo]) -> list[tuple[tuple[str, ...], zipfile.ZipInfo]]:
    """Each entry with the parts of its path, when all of them may be written."""
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise JobSpecError("The job's bundle is too large", why=f"at most {MAX_FILES} files, {MAX_UNPACKED >> 20} MiB")
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    wanted = []
    for entry in entries:
        kind, is_folder = stat.S_IFMT(entry.external_attr >> 16), _is_folder(entry)
        why = _bad_name(entry.filename)
        if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
            why = "it is a link, or no plain file"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = "it is packed in another way than deflate"
        if why:
            raise JobSpecError("The job's bundle is refused", why=f"{entry.filename!r}: {why}")
        parts = tuple(part for part in entry.filename.split("/") if part not in ("", "."))
        (folders if is_folder else files).add(parts)
        folders.update(parts[:length] for length in range(1, len(parts)))
        wanted.append((parts, entry))
    if len(files) != sum(not _is_folder(entry) for entry in entries) or files & folders:
        raise JobSpecError("The job's bundle is refused", why="a name stands there twice")
    return wanted


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith("/")  # zipfile's is_dir fails for an empty name


def _bad_name(name: str) -> str:
    """Why a path can't be that of a job's file; empty when it can."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        return "it would leave its folder"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(ord(char) < 32 or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in name):
        return "that is no name of a file"
    if any(part.split(".")[0].rstrip().lower() in _DEVICES for part in parts) or name[1:2] == ":":
        return "that is the name of a device"
    if len(os.fsencode(name)) > _MAX_NAME or any(len(os.fsencode(part)) > _MAX_PART for part in parts):
        return "its name is too long"
    return ""
