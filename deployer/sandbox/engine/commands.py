"""The commands that run no deployment: stacks, configuration, who and what this is."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from . import config as configuration
from . import stacks
from .backend import whoami
from .flags import Line
from .passphrase import Secrets
from .problems import CommandFailed
from .session import Session
from .state import VERSION


def _session() -> Session:
    return Session(Path.cwd(), os.environ)


def _print(value: object, indent: int = 2) -> None:
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def stack(line: Line) -> int:
    verb = line.words.pop(0) if line.words else ""
    command = stacks.COMMANDS.get(verb)
    if command is None:
        raise CommandFailed(f'unknown command "{verb}" for "pulumi stack"')
    return command(_session(), line)


def config(line: Line) -> int:
    session = _session()
    verb = line.words.pop(0) if line.words else ""
    session.choose(line.get("stack"))
    values = session.settings.data.setdefault("config", {}) or {}
    session.settings.data["config"] = values
    project, path = session.project.name, line.has("path")
    if verb == "":
        show = line.has("show-secrets")
        _print(configuration.listed(values, project, session.secrets if show else _locked(session), show=show))
        return 0
    if verb == "get":
        found = configuration.listed(values, project, session.secrets, show=True)
        key = configuration.full_key(line.words[0], project)
        if key not in found:
            raise CommandFailed(f"configuration key '{line.words[0]}' not found for stack '{session.stack}'")
        if line.has("json"):
            _print({k: v for k, v in found[key].items() if k in {"value", "secret", "objectValue"}})
        else:
            print(found[key]["value"])
        return 0
    _change(session, verb, line, values, path=path)
    if not values:
        session.settings.data.pop("config", None)
    session.settings.save()
    return 0


def _locked(session: Session) -> Secrets:
    """Nothing is decrypted when secrets are not shown: no passphrase is asked for."""
    return Secrets("", None)


def _change(session: Session, verb: str, line: Line, values: dict[str, object], *, path: bool) -> None:
    project = session.project.name
    if verb == "set":
        key = line.words[0]
        value = line.words[1] if len(line.words) > 1 else sys.stdin.read().rstrip("\n")
        secret = line.has("secret")
        secrets = session.secrets if secret else _locked(session)
        configuration.set_value(values, key, value, project, secrets, secret=secret, path=path)
    elif verb == "set-all":
        if text := line.get("json"):
            for key, entry in json.loads(text).items():
                _set(session, values, key, str(entry["value"]), secret=bool(entry.get("secret")), path=False)
        for kind in ("plaintext", "secret"):
            for pair in line.all(kind):
                key, _, value = pair.partition("=")
                _set(session, values, key, value, secret=kind == "secret", path=path)
    elif verb in {"rm", "rm-all"}:
        for key in line.words:
            configuration.remove_value(values, key, project, path=path)
    elif verb == "refresh":
        history = session.backend.history(session.stack)
        if not history:
            raise CommandFailed("no previous deployment")
        values.clear()
        values.update(history[0].get("config") or {})
    else:
        raise CommandFailed(f'unknown command "{verb}" for "pulumi config"')


def _set(session: Session, values: dict[str, object], key: str, value: str, *, secret: bool, path: bool) -> None:
    secrets = session.secrets if secret else _locked(session)
    configuration.set_value(values, key, value, session.project.name, secrets, secret=secret, path=path)


def cancel(line: Line) -> int:
    session = _session()
    if line.words:
        line.flags["stack"] = [line.words[0]]
    session.choose(line.get("stack"))
    for lock in session.backend.locks(session.stack):
        lock.unlink(missing_ok=True)
    print(f"The currently running update for '{session.stack}' has been canceled!")
    return 0


def who(line: Line) -> int:
    if not line.has("json"):
        print(whoami())
        return 0
    _print({"user": whoami(), "url": _session().backend.url})
    return 0


def about(line: Line) -> int:
    facts = {
        "cliAbout": {"version": VERSION, "goVersion": "", "goCompiler": "", "engine": "fedspan sandbox"},
        "host": {"os": platform.system().lower(), "version": platform.release(), "arch": platform.machine()},
        "runtime": {"executable": sys.executable, "version": platform.python_version()},
    }
    if line.has("json"):
        _print(facts)
        return 0
    print(
        f"CLI\nVersion  {VERSION} (the sandbox's stand-in for the pulumi command)\nPython   {platform.python_version()}"
    )
    print(f"Host     {platform.system()} {platform.release()} {platform.machine()}")
    return 0


def plugin(line: Line) -> int:
    verb = line.words.pop(0) if line.words else ""
    if verb == "ls":
        _print([]) if line.has("json") else print("NAME  KIND  VERSION  SIZE  INSTALLED  LAST USED")
        return 0
    if verb == "rm":
        return 0
    raise CommandFailed(
        "the sandbox's engine installs no plugins: it is attached to those named in PULUMI_DEBUG_PROVIDERS"
    )


def install(line: Line) -> int:
    """Nothing is to be installed: programs are inline, providers are attached."""
    return 0


def login(line: Line) -> int:
    session_home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    url = line.words[0] if line.words else "file://~" if line.has("local") else ""
    if not url.startswith("file://"):
        raise CommandFailed(
            f"the sandbox's engine keeps state in files only (file://…), not in {url or 'the Pulumi cloud'}"
        )
    session_home.mkdir(parents=True, exist_ok=True)
    path = session_home / "credentials.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**data, "current": url}))
    print(f"Logged in to {platform.node()} as {whoami()} ({url})")
    return 0


COMMANDS: dict[str, Callable[[Line], int]] = {
    "stack": stack,
    "config": config,
    "cancel": cancel,
    "whoami": who,
    "about": about,
    "plugin": plugin,
    "install": install,
    "login": login,
}
