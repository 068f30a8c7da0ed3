"""Wheels made again from what is installed here: no index, no build backend, and what was tested is what is pushed.

An installed distribution is its wheel unpacked (PEP 427, PEP 376): its RECORD lists the files, its WHEEL the tags. So
the wheel can be put together again, byte for byte the same each time: sorted names, one date, fixed modes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from deployer.errors import MissingToolError

OWN_PACKAGES = ("dashboard", "deployer", "fl_runtime", "stacks", "startup_kits")
"""fedspan's import packages, those that are there."""

DEFLATE_LEVEL = 1
"""Measured: the base bundle is 119 MB stored, 43 MB at level 1 (1.5 s), 38 MB at level 6 (4.2 s)."""

_LEFT_OUT = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
_SHEBANG = re.compile(rb"\A#!.*python[0-9.]*")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class CannotRepack(Exception):
    """A distribution that is installed in a way from which no portable wheel can be made."""


@dataclass(frozen=True)
class InstalledWheel:
    """What a wheel of an installed distribution would hold.

    Attributes:
        file_name: of the wheel, tags included.
        files: archive path -> where it lies here.
        texts: archive path -> generated content.
        info: the archive's `.dist-info` folder.
        key: hash that is different whenever the wheel is.
    """

    file_name: str
    files: dict[str, Path]
    texts: dict[str, str]
    info: str
    key: str

    def write(self, path: Path) -> None:
        """Writes the wheel."""
        rows = []
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=DEFLATE_LEVEL) as archive:
            for name in sorted([*self.files, *self.texts]):
                source = self.files.get(name)
                data = source.read_bytes() if source is not None else self.texts[name].encode()
                if name.split("/")[0].endswith(".data") and name.split("/")[1] == "scripts":
                    data = _SHEBANG.sub(b"#!python", data)  # an installer put this machine's interpreter there
                executable = source is not None and os.access(source, os.X_OK)
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = (0o100755 if executable else 0o100644) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, data, compresslevel=DEFLATE_LEVEL)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
                rows.append(f"{name},sha256={digest},{len(data)}")
            record = zipfile.ZipInfo(f"{self.info}/RECORD", _EPOCH)
            record.external_attr = 0o100644 << 16
            archive.writestr(record, "\n".join([*rows, f"{self.info}/RECORD,,", ""]))


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def own_wheel() -> InstalledWheel:
    """fedspan's own wheel, from its packages as they are imported here (an editable install included).

    Raises:
        MissingToolError: fedspan runs from a folder without being installed, so that its metadata is missing.
    """
    try:
        dist = metadata.distribution("fedspan")
    except metadata.PackageNotFoundError as error:
        raise MissingToolError(
            "fedspan is not installed here, only imported",
            why="its metadata (version, requirements) is needed for the machines",
            next_step="python3 -m pip install -e '.[cloud]' in fedspan's folder",
        ) from error
    info = f"fedspan-{dist.version}.dist-info"
    files = dict(_own_sources())
    texts = {
        f"{info}/METADATA": dist.read_text("METADATA") or "",
        f"{info}/entry_points.txt": dist.read_text("entry_points.txt") or "",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: fedspan\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name}\0{int(os.access(files[name], os.X_OK))}\0".encode())
        found.update(hashlib.sha256(files[name].read_bytes()).digest())
    for name in sorted(texts):
        found.update(f"{name}\0{texts[name]}\0".encode())
    return InstalledWheel(f"fedspan-{dist.version}-py3-none-any.whl", files, texts, info, found.hexdigest())


def installed_wheel(dist: metadata.Distribution) -> InstalledWheel:
    """The wheel of an installed distribution.

    Raises:
        CannotRepack: it has no RECORD or WHEEL (a system package, an egg), is editable, was compiled here, or lacks
            one of its files.
    """
    about = dist.metadata  # parsed anew at each access
    name, version, listed, wheel = about["Name"], about["Version"], dist.files, dist.read_text("WHEEL")
    if not listed or not wheel or '"editable": true' in (dist.read_text("direct_url.json") or ""):
        raise CannotRepack(f"{name} was not installed from a wheel")
    tags = [line.split(":", 1)[1].strip() for line in wheel.splitlines() if line.startswith("Tag:")]
    if not tags or any(tag.rsplit("-", 1)[1].startswith(("linux_", "macosx_", "win")) for tag in tags):
        raise CannotRepack(f"{name} was compiled for this machine ({', '.join(tags)})")
    stem = re.sub(r"[-_.]+", "_", name)
    info = next((file.parts[0] for file in listed if file.parts[0].endswith(".dist-info")), "")
    scripts = {entry.name for entry in dist.entry_points if entry.group in ("console_scripts", "gui_scripts")}
    data = f"{stem}-{version}.data"
    files: dict[str, Path] = {}
    for file in listed:
        source = Path(str(file.locate()))
        place = _place(file, source, data, scripts)
        if place is None:
            continue
        if not source.is_file():
            raise CannotRepack(f"{name} lacks its file {file}")
        files[place] = source
    key = hashlib.sha256(f"{DEFLATE_LEVEL}\0{wheel}\0{dist.read_text('RECORD')}".encode()).hexdigest()
    return InstalledWheel(f"{stem}-{version}-{_tag_set(tags)}.whl", files, {}, info, key)


def tag_platforms(file_name: str) -> list[str]:
    """The platform tags of a wheel's file name."""
    return file_name[: -len(".whl")].rsplit("-", 1)[1].split(".")


def _own_sources() -> Iterator[tuple[str, Path]]:
    for package in OWN_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        top = Path(next(iter(spec.submodule_search_locations)))
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(one for one in folders if one != "__pycache__" and not one.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and not name.endswith((".pyc", "~")) and path.is_file():
                    yield str(PurePosixPath(package, *path.relative_to(top).parts)), path


def _place(file: metadata.PackagePath, source: Path, data: str, scripts: set[str]) -> str | None:
    """Where a file of a RECORD lies in the wheel; None for what installers make themselves."""
    name = file.name
    if name.endswith(".pyc") or "__pycache__" in file.parts:
        return None
    if file.parts[0] != ".." and not file.is_absolute():
        made = file.parts[0].endswith(".dist-info") and len(file.parts) == 2 and name in _LEFT_OUT
        return None if made else file.as_posix()
    inside = Path(os.path.relpath(os.path.normpath(source), sys.prefix))
    if inside.parts[0] == "bin":
        made = name in scripts or re.sub(r"[0-9.]+$", "", name) in scripts  # pip, pip3, pip3.11
        return None if made else f"{data}/scripts/{name}"
    if inside.parts[0] == "..":
        raise CannotRepack(f"{source} lies outside of {sys.prefix}")
    return f"{data}/data/{inside.as_posix()}"


def _tag_set(tags: list[str]) -> str:
    """`cp311-abi3-manylinux…` for a file name: compressed tag sets, dots between alternatives (PEP 425)."""
    columns = zip(*(tag.split("-", 2) for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(column)) for column in columns)
