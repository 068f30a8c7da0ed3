"""Installs the pinned `pulumi` into a folder of fedspan's own, checked by SHA-256 before a byte of it is run.

The archive comes from get.pulumi.com, the checksum from the release's own list on github.com: two hosts, both by TLS,
so that neither alone can give out another program. fedspan pins the version and not the checksum. Who wants it pinned
gives it (`--sha256`); offline, the archive comes from a file, with the list beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from deployer.engine_find import ENGINE_VERSION, command_in, own_engine_root
from deployer.errors import MissingToolError
from deployer.settings import setting

MIRROR_VARIABLE = "FEDSPAN_ENGINE_MIRROR"
"""An https:// folder that holds archive and list of checksums, where a site has a mirror of its own."""

ARCHIVES = "https://get.pulumi.com/releases/sdk"
CHECKSUMS = f"https://github.com/pulumi/pulumi/releases/download/v{ENGINE_VERSION}"
CHECKSUM_FILE = f"pulumi-{ENGINE_VERSION}-checksums.txt"
RECORD = "installed.json"

_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
_MAX_ARCHIVE = 600 * 1024 * 1024
_MAX_CHECKSUMS = 1024 * 1024
_BLOCK = 1 << 20


def archive_name() -> str:
    """The release's archive for this machine. Raises MissingToolError where there is none."""
    system, machine = _SYSTEMS.get(platform.system()), _MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        raise MissingToolError(
            f"there is no pulumi {ENGINE_VERSION} for {platform.system()} on {platform.machine()}",
            next_step="fedspan from a machine with Linux or macOS on x86-64 or arm64",
        )
    return f"pulumi-v{ENGINE_VERSION}-{system}-{machine}.tar.gz"


def sources() -> tuple[str, str]:
    """URLs of the archive and of the list of checksums; a mirror's where FEDSPAN_ENGINE_MIRROR names one."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    return f"{mirror or ARCHIVES}/{archive_name()}", f"{mirror or CHECKSUMS}/{CHECKSUM_FILE}"


def steps() -> list[str]:
    """What to type by hand, on a machine without internet access too."""
    archive, checksums = sources()
    return [
        f"curl -fLO {archive}",
        f"curl -fLO {checksums}",
        f"sha256sum --check --ignore-missing {CHECKSUM_FILE}   # macOS: shasum -a 256 --check --ignore-missing",
        f"bring both files here, then: fedspan engine install --pulumi ./{archive_name()}",
    ]


def missing(why: str | None = None) -> MissingToolError:
    """The error where there is no command and nobody said yes."""
    return MissingToolError(
        "the `pulumi` command is not installed",
        why=why or f"it makes resources in real clouds; looked on PATH, in ~/.pulumi and in {own_engine_root()}",
        next_step=f"fedspan engine install (pulumi {ENGINE_VERSION} from get.pulumi.com, checked; --yes for scripts), "
        "or --pulumi PATH; fedspan engine steps prints what to type on a machine without internet access",
    )


def install(
    archive: Path | None = None, sha256: str | None = None, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Install it; returns the folder above `bin/pulumi`. Nothing is left of an attempt that fails.

    Args:
        archive: the release's archive on this machine; None downloads it.
        sha256: the checksum to hold it against, in hex; None takes the release's list (beside the archive, or by TLS).
        say: told what happens.

    Raises:
        MissingToolError: not reachable, another checksum, no archive of Pulumi's, or a command that does not run.
    """
    target = own_engine_root()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".install-", dir=target.parent))
    try:
        file, origin = (archive, str(archive)) if archive is not None else _fetched(staging, say)
        found = _sha256(file)
        wanted, judge = _wanted(file, archive is None, sha256)
        if found != wanted:
            raise _failed(
                f"{origin} has another checksum than {judge} says",
                f"SHA-256 {found}, and it should be {wanted}",
                "fetch it again; if that changes nothing, don't use it",
            )
        say(f"SHA-256 {found}: as {judge} says")
        _unpack(file, staging / "root")
        _check_runs(staging / "root")
        record = {"version": ENGINE_VERSION, "sha256": found, "from": origin, "checked_against": judge}
        record["installed"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        (staging / "root" / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if target.exists():
            target.rename(staging / "before")
        (staging / "root").rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def installed() -> dict[str, Any] | None:
    """What is known of fedspan's own copy: version, sha256, from, checked_against, installed; None without one."""
    try:
        record: dict[str, Any] = json.loads((own_engine_root() / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record


def _failed(what: str, why: str, next_step: str | None = None) -> MissingToolError:
    return MissingToolError(what, why=why, next_step=next_step or "fedspan engine steps prints what to type by hand")


# -- getting it ------------------------------------------------------------------------------------------------
class _OnlyTls(urllib.request.HTTPRedirectHandler):
    """A redirection may lead to another host, but never out of TLS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> Any:
    if urllib.parse.urlsplit(url).scheme != "https":
        raise _failed(f"{url} is not fetched", f"{MIRROR_VARIABLE} must be an https:// folder")
    handlers = (_OnlyTls(), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    request = urllib.request.Request(url, headers={"User-Agent": "fedspan"})  # noqa: S310 (https only, checked)
    try:
        return urllib.request.build_opener(*handlers).open(request, timeout=setting("DOWNLOAD_TIMEOUT"))
    except (OSError, ValueError) as error:
        raise _failed(f"{url} can't be fetched", str(getattr(error, "reason", error))) from error


def _fetched(folder: Path, say: Callable[[str], None]) -> tuple[Path, str]:
    url = sources()[0]
    say(f"fetching {url}")
    file = folder / "archive.tar.gz"
    with _open(url) as answer, file.open("wb") as out:
        _copy(answer, out, url)
    return file, url


def _copy(answer: IO[bytes], out: IO[bytes], url: str) -> None:
    size = 0
    try:
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > _MAX_ARCHIVE:
                raise _failed(f"{url} is larger than any release of Pulumi", f"more than {_MAX_ARCHIVE >> 20} MiB")
            out.write(block)
    except OSError as error:
        raise _failed(f"{url} broke off", f"{error}, after {size >> 20} MiB") from error


def _wanted(file: Path, fetched: bool, given: str | None) -> tuple[str, str]:
    """The checksum that the archive must have, and who says so."""
    if given is not None:
        return given.strip().lower(), "--sha256"
    if fetched:
        judge = sources()[1]
        with _open(judge) as answer:
            text = answer.read(_MAX_CHECKSUMS).decode("utf-8", "replace")
    else:
        beside = file.parent / CHECKSUM_FILE
        judge = str(beside)
        try:
            text = beside.read_text(errors="replace")
        except OSError as error:
            raise _failed(
                f"nothing says which checksum {file} must have",
                f"{beside}: {error.strerror}",
                f"put {CHECKSUM_FILE} beside it, or --sha256 HEX",
            ) from None
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*") == archive_name() and len(words[0]) == 64:
            return words[0].lower(), judge
    raise _failed(f"{judge} does not list {archive_name()}", "so the archive can't be checked")


def _sha256(file: Path) -> str:
    sums = hashlib.sha256()
    try:
        with file.open("rb") as data:
            while block := data.read(_BLOCK):
                sums.update(block)
    except OSError as error:
        raise _failed(f"{file} can't be read", error.strerror or str(error)) from error
    return sums.hexdigest()


# -- unpacking it ----------------------------------------------------------------------------------------------
def _unpack(file: Path, root: Path) -> None:
    """The programs in the archive's one folder become `root/bin/…`; anything else in it is refused."""
    programs = root / "bin"
    programs.mkdir(mode=0o700, parents=True)
    try:
        with tarfile.open(file, "r:gz") as archive:
            for entry in archive:
                parts = Path(entry.name).parts
                if entry.isdir():
                    continue
                if not entry.isreg() or parts[:1] != ("pulumi",) or ".." in parts or not 2 <= len(parts) <= 3:
                    raise _failed(f"{file.name} is no archive of Pulumi's", f"it holds {entry.name!r}")
                source = archive.extractfile(entry)
                assert source is not None, "a regular file has contents"
                with source, (programs / parts[-1]).open("wb") as out:
                    shutil.copyfileobj(source, out, _BLOCK)
                (programs / parts[-1]).chmod(0o755)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _failed(f"{file.name} can't be unpacked", str(error)) from error


def _check_runs(root: Path) -> None:
    command = command_in(root)
    environment = {"PATH": os.defpath, "HOME": str(root), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run([str(command), "version"], env=environment, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise _failed("the command in the archive does not run", str(error)) from error
    if done.stdout.strip() != f"v{ENGINE_VERSION}":
        said = (done.stdout + done.stderr).strip()
        raise _failed(f"the archive holds another command than pulumi {ENGINE_VERSION}", f"it said {said[:200]!r}")
