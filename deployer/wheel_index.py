"""Wheels for another Python or processor than this one, from the package index that pip is configured for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement

from deployer.errors import MachineError, MissingToolError, UnreachableError
from deployer.targets import Target
from deployer.wheels import normalized

DOWNLOAD_TIMEOUT_S = 900.0
_UNREACHABLE = ("NewConnectionError", "Max retries", "Temporary failure", "ConnectTimeout", "Connection refused")


def pip_command() -> list[str]:
    """pip here, as argv: the installed one, or the one that Python carries for new environments.

    Raises:
        MissingToolError: neither is there.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    carried = carried_pip()
    if carried is None:
        raise MissingToolError("pip is missing", why=f"{sys.executable} has none", next_step="python3 -m ensurepip")
    return [sys.executable, str(carried / "pip")]


def carried_pip() -> Path | None:
    """The pip wheel that this Python carries (ensurepip), None where a distribution took it out."""
    spec = importlib.util.find_spec("ensurepip")
    folder = Path(spec.origin).parent / "_bundled" if spec is not None and spec.origin else None
    found = sorted(folder.glob("pip-*.whl")) if folder is not None and folder.is_dir() else []
    return found[-1] if found else None


def download_argv(target: Target, requirements: Iterable[str], folder: Path, *, with_dependencies: bool) -> list[str]:
    """`pip download` for a target, without the command itself."""
    argv = ["download", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    argv += ["--retries", "3"]  # whoever cannot be reached shows only in the warnings of the retries
    argv += ["--dest", str(folder), "--python-version", target.python, "--implementation", "cp"]
    argv += ["--abi", target.interpreter, "--abi", "abi3", "--abi", "none"]
    for tag in target.platforms():
        argv += ["--platform", tag]
    return [*argv, *([] if with_dependencies else ["--no-deps"]), *requirements]


def fetch(target: Target, pinned: Sequence[str], ranges: Sequence[str], folder: Path) -> None:
    """Fetches wheels for a target into `folder`, closed under their requirements.

    Args:
        pinned: `name==version` of everything, as installed here. Tried first: what was tested is what is pushed.
        ranges: the top requirements, resolved by pip where a pinned version has no wheel for the target.

    Raises:
        UnreachableError: the index does not answer.
        MachineError: the index has no fitting wheels.
    """
    if not _pip(target, pinned, folder, with_dependencies=False, probing=True):
        _pip(target, ranges, folder, with_dependencies=True, probing=False)
    for _ in range(20):
        missing = missing_requirements(target, folder)
        if not missing:
            return
        # pip evaluates markers for the Python it runs on, not for --python-version: fetch what only the target needs.
        _pip(target, missing, folder, with_dependencies=False, probing=False)
    raise MachineError(
        f"the wheels for {target} need ever more of each other",
        why=", ".join(missing),
        next_step="choose an image with the Python that fedspan runs on here",
    )


def missing_requirements(target: Target, folder: Path) -> list[str]:
    """What the wheels in a folder need on the target and is not among them."""
    have: set[str] = set()
    needed: dict[str, str] = {}
    for path in sorted(folder.glob("*.whl")):
        name, requires = wheel_metadata(path)
        have.add(normalized(name))
        for line in requires:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(dict(target.markers())):
                needed[normalized(requirement.name)] = f"{requirement.name}{requirement.specifier}"
    return [line for name, line in sorted(needed.items()) if name not in have]


def wheel_metadata(path: Path) -> tuple[str, list[str]]:
    """A wheel's name and its Requires-Dist lines."""
    with zipfile.ZipFile(path) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA") and one.count("/") == 1)
        headers = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    return str(headers["Name"]), [str(line) for line in headers.get_all("Requires-Dist", [])]


def _pip(target: Target, requirements: Sequence[str], folder: Path, *, with_dependencies: bool, probing: bool) -> bool:
    argv = [*pip_command(), *download_argv(target, requirements, folder, with_dependencies=with_dependencies)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(target, f"no answer within {DOWNLOAD_TIMEOUT_S:.0f} s") from error
    if done.returncode == 0:
        return True
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "rror" in line]
    why = "\n".join(said[-3:]) or done.stderr.strip()[-400:]
    # Offline, pip ends with the words of a missing version; its warnings before tell that nobody answered.
    if any(word in done.stderr for word in _UNREACHABLE):
        raise _unreachable(target, why)
    if probing:
        return False
    raise MachineError(
        f"the package index has no wheels for {target}",
        why=why,
        next_step="choose an image with another Python (3.10 to 3.13), or set PIP_INDEX_URL to an index that has them",
    )


def _unreachable(target: Target, why: str) -> UnreachableError:
    return UnreachableError(
        f"the wheels for {target} cannot be fetched",
        why=f"the package index does not answer: {why}",
        next_step="set PIP_INDEX_URL or PIP_FIND_LINKS to an index or a folder that you can reach, or run fedspan with "
        f"Python {target.python} on {target.arch}: then the packages that are installed here are used",
    )
