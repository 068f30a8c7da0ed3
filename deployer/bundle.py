"""The bundle: a folder of wheels from which a machine installs the runtime without a network.

It holds fedspan's own wheel, its base requirements for the machine's Python, processor and C library, and pip. Where
the machine has this Python, the packages installed here are used, so that what was tested is what is pushed;
otherwise `pip download` fetches them once. Everything is cached under `$XDG_CACHE_HOME/fedspan`, keyed by content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from deployer.errors import UsageError
from deployer.push import local_tree
from deployer.targets import Target
from deployer.wheel_index import carried_pip, fetch
from deployer.wheels import CannotRepack, InstalledWheel, installed_wheel, normalized, own_wheel, tag_platforms

KEPT_BUNDLES = 6
"""Cached bundles beyond this many go, the longest unused first."""

# Gigabytes with CUDA. Machines have it in their image, or ask an index themselves.
_NEVER_OVER_SSH = ("torch", "nvidia-", "triton")


@dataclass(frozen=True)
class Bundle:
    """A folder of wheels.

    Attributes:
        folder: where it lies here; it holds wheels and nothing else.
        tree: its content hash, which names the virtual environment on the machine.
        size: bytes.
    """

    folder: Path
    tree: str
    size: int


# Participants are pushed in parallel and mostly want the same bundle: one thread makes it, the others get it.
_BUILDING = threading.Lock()
_BUILT: dict[tuple[Target, Path, tuple[str, ...]], Bundle] = {}


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/fedspan`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedspan"


def build_bundle(target: Target, cache: Path | None = None, extra: Sequence[str] = ()) -> Bundle:
    """The bundle for a machine, from the cache where it is there.

    Args:
        target: the machine's interpreter.
        cache: folder, by default `default_cache()`. Safe to use from several threads and processes.
        extra: further requirements, such as `scikit-learn>=1.5`.

    Raises:
        UsageError: an extra brings torch, or is no requirement.
        UnreachableError: wheels must be fetched and the index does not answer.
        MachineError: the index has no fitting wheels.
    """
    cache = cache or default_cache()
    with _BUILDING:
        asked = (target, cache, tuple(extra))
        known = _BUILT.get(asked)
        if known is None or not known.folder.is_dir():
            known = _BUILT[asked] = _build(target, cache, extra)
        return known


def _build(target: Target, cache: Path, extra: Sequence[str]) -> Bundle:
    with _locked(cache):
        wheels = [_cached(own_wheel(), cache), *_requirements(target, cache, extra)]
        names = sorted(f"{path.parent.name}/{path.name}" for path in wheels)
        folder = cache / "bundles" / hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]
        if not folder.is_dir():
            _assemble(wheels, folder)
        os.utime(folder)
        _prune(cache, wheels)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Bundle(folder, local_tree(folder), size)


def base_requirements(extra: Sequence[str] = ()) -> list[str]:
    """fedspan's base requirements, pip, and the extra ones."""
    lines = [line for line in metadata.distribution("fedspan").requires or [] if "extra ==" not in line]
    try:
        checked = [str(Requirement(line)) for line in extra]
    except ValueError as error:
        raise UsageError(
            f"{extra!r} are no requirements", why=str(error), next_step="requirements such as scikit-learn>=1.5"
        ) from error
    return [*lines, "pip", *checked]


def installed_closure(target: Target, requirements: Sequence[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that satisfy requirements and theirs in turn, on the target.

    Raises:
        CannotRepack: one is not installed here, or in another version.
        UsageError: torch is among them.
    """
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(line) for line in requirements]
    asked: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = normalized(requirement.name)
        if name.startswith(_NEVER_OVER_SSH):
            raise UsageError(
                f"{requirement.name} does not go over SSH",
                why="it has gigabytes",
                next_step="torch: image, or torch: {index: https://…, version: …} in federation.yml",
            )
        try:
            dist = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise CannotRepack(f"{name} is not installed here") from error
        if not requirement.specifier.contains(dist.version, prereleases=True):
            raise CannotRepack(f"{name} {dist.version} is installed, {requirement.specifier} is wanted")
        found[name] = dist
        for wanted in ["", *sorted(requirement.extras)]:
            if (name, wanted) in asked:
                continue
            asked.add((name, wanted))
            for line in dist.requires or []:
                needed = Requirement(line)
                environment = {**target.markers(), "extra": wanted}
                if needed.marker is None or needed.marker.evaluate(dict(environment)):
                    waiting.append(needed)
    return found


def _requirements(target: Target, cache: Path, extra: Sequence[str]) -> list[Path]:
    """Wheels of everything but fedspan itself."""
    requirements = base_requirements(extra)
    pinned: list[str] = []
    with contextlib.suppress(CannotRepack):
        dists = installed_closure(target, [line for line in requirements if line != "pip"])
        pinned = [f"{name}=={dist.version}" for name, dist in sorted(dists.items())]
        if target.same_interpreter(Target.here()):
            wheels = [installed_wheel(dist) for dist in dists.values()]
            if all(target.takes(tag_platforms(wheel.file_name)) for wheel in wheels):
                return [*(_cached(wheel, cache) for wheel in wheels), _pip_wheel(target, cache)]
    return _fetched(target, cache, [*pinned, "pip"] if pinned else requirements, requirements)


def _pip_wheel(target: Target, cache: Path) -> Path:
    """pip: the installed one, the one that Python carries, or the index's."""
    with contextlib.suppress(metadata.PackageNotFoundError, CannotRepack):
        return _cached(installed_wheel(metadata.distribution("pip")), cache)
    carried = carried_pip()
    if carried is None:
        return _fetched(target, cache, ["pip"], ["pip"])[0]
    folder = cache / "wheels" / hashlib.sha256(carried.read_bytes()).hexdigest()[:32]
    if not folder.is_dir():
        _assemble([carried], folder)
    return folder / carried.name


def _cached(wheel: InstalledWheel, cache: Path) -> Path:
    """A wheel in the cache, written where it is missing."""
    path = cache / "wheels" / wheel.key[:32] / wheel.file_name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            wheel.write(Path(temporary))
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    os.utime(path.parent)
    return path


def _fetched(target: Target, cache: Path, pinned: Sequence[str], ranges: Sequence[str]) -> list[Path]:
    """Wheels from the index, or from the cache of an earlier time."""
    asked = "\n".join([str(target), *sorted(pinned), "--", *sorted(ranges)])
    folder = cache / "fetched" / hashlib.sha256(asked.encode()).hexdigest()[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
            arriving = Path(scratch) / "wheels"
            arriving.mkdir()
            fetch(target, pinned, ranges, arriving)
            arriving.rename(folder)
    return sorted(folder.glob("*.whl"))


def _assemble(wheels: Sequence[Path], folder: Path) -> None:
    """A folder of hard links, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
        arriving = Path(scratch) / "wheels"
        arriving.mkdir()
        for wheel in wheels:
            try:
                os.link(wheel, arriving / wheel.name)
            except OSError:  # another file system
                shutil.copyfile(wheel, arriving / wheel.name)
            os.chmod(arriving / wheel.name, 0o644)
        arriving.rename(folder)


def _prune(cache: Path, used: Sequence[Path]) -> None:
    """Drops the longest unused bundles, and wheels that no kept bundle holds."""
    bundles = sorted((cache / "bundles").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in bundles[KEPT_BUNDLES:]:
        shutil.rmtree(folder)
    held = {(path.name, path.stat().st_size) for folder in bundles[:KEPT_BUNDLES] for path in folder.iterdir()}
    keep = {path.parent for path in used}
    for folder in (cache / "wheels").iterdir():
        if folder not in keep and not any((path.name, path.stat().st_size) in held for path in folder.iterdir()):
            shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One builder of a cache at a time: participants are pushed in parallel and mostly want the same bundle."""
    cache.mkdir(parents=True, exist_ok=True)
    handle = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
