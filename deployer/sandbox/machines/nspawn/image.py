"""The machines' root file system: a Debian made once with debootstrap, kept in the user's cache.

What a cloud's image has and a federation needs: systemd, cloud-init, sshd, Python without its venv package, sudo, time
and upgrades. Packages come from the sources that this computer itself installs from, and from nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import SandboxError
from deployer.sandbox.machines import disk
from deployer.sandbox.machines.nspawn import tools
from deployer.sandbox.state import locked

PACKAGES = (
    "ca-certificates",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
    "python3",  # without python3-venv, like the clouds' images
    "sudo",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "unattended-upgrades",
)
OnProgress = Callable[[str], None]

_NO_SERVICES = "#!/bin/sh\n# No service starts while the image is made.\nexit 101\n"


@dataclass(frozen=True)
class Source:
    """One of the archives that this computer installs from."""

    uri: str
    suite: str


def folder_of(cache: Path | None = None) -> Path:
    """Where the root file system for this computer lies, whether or not it is there yet."""
    base = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedspan"
    recipe = [PACKAGES, release(), os.uname().machine]
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return base / "machine-root" / key


def ensure(tell: OnProgress, cache: Path | None = None) -> Path:
    """The root file system, made if it is not there: a minute or two, from the package mirror.

    Raises:
        MissingToolError: no root, or a tool is not installed.
        SandboxError: a step failed; its log is named.
    """
    tools.require()
    root = folder_of(cache)
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.parent / "lock"):
        if not root.is_dir():
            _make(root, tell)
    return root


def release() -> str:
    """The code name of this computer's Debian or Ubuntu, which the machines get too; "" elsewhere."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def sources(listing: str, codename: str) -> list[Source]:
    """The distribution's own archives among what apt lists (`created by|suite|component|origin|URI` a line).

    The first is the release itself; updates and security follow.
    """
    found: list[Source] = []
    for line in listing.splitlines():
        created, suite, component, origin, uri = (line.split("|") + [""] * 5)[:5]
        if created != "Packages" or component != "main" or origin.startswith("$"):
            continue
        if origin in ("Debian", "Ubuntu") and suite.split("-")[0] == codename and Source(uri, suite) not in found:
            found.append(Source(uri, suite))
    return sorted(found, key=lambda source: source.suite != codename)


def _make(root: Path, tell: OnProgress) -> None:
    draft, log = root.with_suffix(".part"), root.with_suffix(".log")
    codename = release()
    listing = tools.call(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)"],
        check=False,
    )
    archives = sources(listing, codename)
    if not archives or archives[0].suite != codename:
        raise SandboxError(
            "the machines' root file system can't be made",
            why="apt knows no archive of this computer's own release",
            next_step="apt-get update, on a Debian or Ubuntu",
        )
    disk.remove(draft)
    log.unlink(missing_ok=True)
    tell(f"making the machines' root file system, once: {codename} with debootstrap, a minute or two")
    arguments = ["--variant=minbase", "--include=ca-certificates", codename, str(draft), archives[0].uri]
    _step(["debootstrap", *arguments], log)
    _configure_apt(draft, archives)
    tell(f"  installing {', '.join(PACKAGES)}")
    apt = ["chroot", str(draft), "apt-get", "-qq", "-y", "-o", "Dpkg::Options::=--force-unsafe-io"]
    _step([*apt, "update"], log)
    _step([*apt, "install", "--no-install-recommends", *PACKAGES], log)
    _step([*apt, "clean"], log)
    _finish(draft)
    os.replace(draft, root)
    tell(f"  done: {root}")


def _step(argv: list[str], log: Path) -> None:
    with open(log, "a") as out:
        out.write(f"$ {' '.join(argv)}\n")
        out.flush()
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**tools.environment(), "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    if done.returncode != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise SandboxError(
            "the machines' root file system can't be made",
            why=f"{argv[0]} failed: {said[-1] if said else ''}",
            next_step="the same command again, once the package mirror answers",
            log=str(log),
        )


def _configure_apt(root: Path, archives: list[Source]) -> None:
    lines = "".join(f"deb {archive.uri} {archive.suite} main\n" for archive in archives)
    (root / "etc/apt/sources.list").write_text(lines)
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text(_NO_SERVICES)
    policy.chmod(0o755)


def _finish(root: Path) -> None:
    """Takes out what is this computer's or one machine's alone."""
    (root / "usr/sbin/policy-rc.d").unlink()
    for name in ("etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
