"""The engine: which command, which version, which plugins, which backend, and the passphrase of the stacks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deployer.engine_find import ENGINE_VERSION, ROOT_VARIABLE, command_in, find_engine, own_engine_root
from deployer.engine_home import BACKEND_VARIABLE, EngineHome, lost_passphrase
from deployer.errors import CloudError, FedspanError, MissingToolError
from deployer.preflight.model import Finding

PLUGINS = {"aws": ("aws", "pulumi-aws"), "azure": ("azure-native", "pulumi-azure-native")}


def engine_facts(environ: Mapping[str, str]) -> dict[str, Any]:
    """The command for real clouds: `command`, `version`, `origin`, `pinned`; None for what there is not.

    Raises:
        MissingToolError: a path was given and holds no such command.
    """
    from deployer.engine_install import installed

    root = find_engine(environ)
    facts: dict[str, Any] = {"command": None, "version": None, "origin": None, "pinned": ENGINE_VERSION}
    if root is None:
        return facts
    facts["command"] = str(command_in(root))
    facts["version"] = _version(command_in(root))
    if environ.get(ROOT_VARIABLE):
        facts["origin"] = f"{ROOT_VARIABLE} or --pulumi"
    elif root == own_engine_root():
        record = installed() or {}
        facts["origin"] = (
            f"installed by fedspan from {record.get('from')}, SHA-256 {record.get('sha256')} as "
            f"{record.get('checked_against')} said on {record.get('installed')}"
        )
    else:
        facts["origin"] = "found on this machine"
    return facts


def check_command(realm_kind: str, environ: Mapping[str, str]) -> Iterable[Finding]:
    """Is there a command, does it run, is it new enough?"""
    if realm_kind == "sandbox" and not environ.get(ROOT_VARIABLE):
        yield Finding("engine", "the sandbox's stand-in for pulumi")
        return
    try:
        facts = engine_facts(environ)
    except MissingToolError as error:
        yield from_error("engine", error)
        return
    if facts["command"] is None:
        from deployer.engine_install import missing

        yield from_error("engine", missing())
        return
    if facts["version"] is None:
        yield Finding(
            "engine",
            f"{facts['command']} does not run",
            "refused",
            next_step="fedspan engine install",
            error=MissingToolError,
        )
        return
    yield Finding("engine", f"{facts['command']} {facts['version']}", why=facts["origin"])
    if facts["version"] != f"v{ENGINE_VERSION}":
        yield Finding(
            "engine",
            f"{facts['version']} is another version than the one fedspan is held against",
            "warning",
            why=f"that is v{ENGINE_VERSION}",
            next_step="fedspan engine install",
        )


def check_plugins(realm_kind: str, clouds: Iterable[str], environ: Mapping[str, str]) -> Iterable[Finding]:
    """Are the provider plugins there? Missing ones are fetched by the first `up`."""
    for cloud in sorted(set(clouds)):
        name, distribution = PLUGINS[cloud]
        try:
            wanted = f"v{version(distribution)}"
        except PackageNotFoundError:
            yield Finding(
                "plugins",
                f"{distribution} is not installed",
                "refused",
                next_step="pip install 'fedspan[cloud]'",
                error=MissingToolError,
            )
            continue
        if realm_kind == "sandbox":
            yield Finding("plugins", f"{name} {wanted}: the sandbox's, attached to each engine command")
            continue
        home = Path(environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
        folder = home / "plugins" / f"resource-{name}-{wanted}"
        if folder.is_dir():
            yield Finding("plugins", f"{name} {wanted} in {folder}")
        else:
            yield Finding(
                "plugins",
                f"{name} {wanted} is not installed yet",
                "warning",
                why=f"looked in {folder}; `fedspan up` fetches it, once",
                next_step=f"offline: pulumi plugin install resource {name} {wanted} --file ARCHIVE",
            )


def check_backend(home: EngineHome) -> Iterable[Finding]:
    """Where the stacks lie, and whether their secrets can be read."""
    origin = f"set by {BACKEND_VARIABLE}" if os.environ.get(BACKEND_VARIABLE) else "the default; FEDSPAN_BACKEND=URL"
    yield Finding("backend", home.backend_url, why=origin)
    path = home.passphrase_path
    if path.is_file():
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            yield Finding(
                "passphrase",
                f"{path} can be read by others ({mode:03o})",
                "warning",
                next_step=f"chmod 600 {path}",
            )
        else:
            yield Finding("passphrase", f"{path} is there, yours alone", why="keep a backup of it elsewhere")
    elif home.has_stacks():
        yield from_error("passphrase", lost_passphrase(path))
    else:
        yield Finding("passphrase", "none yet: the first `up` makes it", why=str(path))


def from_error(subject: str, error: FedspanError, participant: str = "") -> Finding:
    """An error that a check met, as a refusal."""
    return Finding(
        subject,
        error.what,
        "refused",
        participant=error.participant or participant,
        why=error.why or "",
        next_step=error.next_step or "",
        error=type(error) if error.exit_code != 1 else CloudError,
    )


def _version(command: Path) -> str | None:
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(
            [str(command), "version"], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
