"""A job's bundle: its folder as a zip whose bytes depend on nothing but the files, and the way back, with care."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath

from fl_runtime.errors import JobSpecError

MAX_PACKED = 256 * 1024 * 1024
MAX_UNPACKED = 1024 * 1024 * 1024
MAX_FILES = 10_000
_SKIPPED = {"__pycache__", ".git", ".venv", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".DS_Store"}


def pack(folder: Path) -> bytes:
    """Zip a folder: sorted names, no times, no owners, so that the same files give the same digest.

    Raises:
        JobSpecError: a link or special file, too many files, or too large.
    """
    buffer = io.BytesIO()
    total = count = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for root, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            for name in sorted(files):
                path = Path(root) / name
                if name in _SKIPPED or name.endswith(".pyc"):
                    continue
                mode = path.lstat().st_mode
                inside = path.relative_to(folder).as_posix()
                if not stat.S_ISREG(mode):
                    raise JobSpecError(f"{inside} can't be part of a job", why="only plain files travel, no links")
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


def unpack(data: bytes, target: Path) -> None:
    """Unpack into a new folder; nothing is written outside of it, whatever the archive says.

    Raises:
        JobSpecError: a path that leaves the folder, a link, or more than the limits.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise JobSpecError("The job's bundle is damaged", why=str(error)) from None
    with archive:
        entries = archive.infolist()
        if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
            raise JobSpecError("The job's bundle is too large")
        for entry in entries:
            name = PurePosixPath(entry.filename)
            bad = name.is_absolute() or ".." in name.parts or "\\" in entry.filename or "\0" in entry.filename
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if bad or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise JobSpecError("The job's bundle is refused", why=f"{entry.filename!r} would leave its folder")
        target.mkdir(parents=True, mode=0o700)
        budget = MAX_UNPACKED
        for entry in entries:
            path = target.joinpath(*PurePosixPath(entry.filename).parts)
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(path, "xb") as copy:
                while piece := source.read(1 << 20):
                    budget -= len(piece)
                    if budget < 0:  # sizes in the directory of a zip may lie
                        raise JobSpecError("The job's bundle is too large")
                    copy.write(piece)
            if (entry.external_attr >> 16) & 0o100:
                path.chmod(0o755)
