"""`pulumi stack …`: making, choosing, listing and removing stacks, and reading and replacing their state."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from . import config as configuration
from .flags import Line
from .passphrase import Secrets
from .problems import CommandFailed
from .session import Session
from .state import Snapshot
from .transfer import export, import_state
from .urns import STACK_TYPE
from .values import SECRET, SIGNATURE, UNKNOWN_TEXT, Unknown, from_checkpoint, plain, walk


def _print(value: Any, indent: int = 2) -> None:
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def init(session: Session, line: Line) -> int:
    name = session.backend.name(_named(line))
    if session.backend.exists(name):
        session.backend.create(name, {})  # says that it exists
    provider = line.get("secrets-provider", "passphrase")
    if provider not in {"passphrase", "default"}:
        raise CommandFailed(f"the sandbox's engine keeps secrets by passphrase only, not by {provider}")
    session.stack = name
    salt = session.settings.data.get("encryptionsalt")
    secrets = session.project.secrets(name, None) if salt else session.new_secrets()
    assert secrets is not None
    secrets.unlock()
    session.backend.create(name, Snapshot().to_json(secrets.encrypt, secrets.state))
    if not line.has("no-select"):
        session.project.select(name)
    sys.stderr.write(f"Created stack '{name}'\n")
    return 0


def _named(line: Line) -> str:
    name = line.words[0] if line.words else line.get("stack")
    if not name:
        raise CommandFailed("missing stack name")
    return name


def select(session: Session, line: Line) -> int:
    if line.has("create") and not session.backend.exists(session.backend.name(_named(line))):
        return init(session, line)
    session.choose(_named(line))
    session.project.select(session.stack)
    return 0


def show(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    resources = session.backend.load(session.stack).get("resources") or []
    print(f"Current stack is {session.stack}:\nCurrent stack resources ({len(resources)}):")
    for resource in resources:
        print(f"    {resource['type']}  {resource['urn'].split('::', 3)[3]}")
    return 0


def ls(session: Session, line: Line) -> int:
    found = []
    for name in session.backend.stacks():
        latest = session.backend.load(name)
        entry: dict[str, Any] = {"name": name, "current": name == session.project.selected}
        resources = latest.get("resources") or []
        if session.backend.history(name) or resources:
            entry["lastUpdate"] = _time(latest["manifest"]["time"])
            entry["resourceCount"] = len(resources)
        if session.backend.locks(name):
            entry["updateInProgress"] = True
        found.append(entry)
    if line.has("json"):
        _print(found)
        return 0
    print("NAME  LAST UPDATE  RESOURCE COUNT")
    for entry in found:
        print(
            f"{entry['name']}{'*' if entry['current'] else ''}",
            entry.get("lastUpdate", "n/a"),
            entry.get("resourceCount", "n/a"),
            sep="  ",
        )
    return 0


def _time(text: str) -> str:
    """The Automation API reads times with three digits of a second."""
    parsed = (
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
        if "." in text
        else datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    )
    return parsed.strftime("%Y-%m-%dT%H:%M:%S.") + f"{parsed.microsecond // 1000:03}Z"


def remove_command(session: Session, line: Line) -> int:
    session.choose(line.words[0] if line.words else line.get("stack"))
    remove(session, session.stack, force=line.has("force"), keep_config=line.has("preserve-config"))
    print(f"Stack '{session.stack}' has been removed!")
    return 0


def remove(session: Session, name: str, *, force: bool, keep_config: bool = False) -> None:
    latest = session.backend.load(name)
    if (latest.get("resources") or []) and not force:
        raise CommandFailed(
            f"'{name}' still has resources; removal rejected. Possible actions:\n"
            f"- Make sure that '{name}' is the stack that you want to destroy\n"
            "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
            "- Run `pulumi stack rm --force` to override this error"
        )
    session.backend.remove(name)
    if not keep_config:
        session.project.settings(name).path.unlink(missing_ok=True)
    if session.project.selected == name:
        session.project.select("")


def output(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    root = next(
        (r for r in session.backend.load(session.stack).get("resources") or [] if r["type"] == STACK_TYPE), None
    )
    outputs: dict[str, Any] = dict((root or {}).get("outputs") or {})
    if line.has("show-secrets"):
        outputs = {k: _clear(v, session) for k, v in outputs.items()}
    else:
        outputs = {k: _blinded(v) for k, v in outputs.items()}
    if line.words:
        if line.words[0] not in outputs:
            raise CommandFailed(f"current stack does not have output property '{line.words[0]}'")
        value = outputs[line.words[0]]
        _print(value) if line.has("json") or not isinstance(value, str) else print(value)
    elif line.has("json"):
        _print(dict(sorted(outputs.items())))
    else:
        print("Current stack outputs:")
        for key, value in sorted(outputs.items()):
            print(f"    {key}  {value if isinstance(value, str) else json.dumps(value)}")
    return 0


def _has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get(SIGNATURE) == SECRET or any(map(_has_secret, value.values()))
    return isinstance(value, list) and any(map(_has_secret, value))


def _blinded(value: Any) -> Any:
    if isinstance(value, dict):
        return "[secret]" if value.get(SIGNATURE) == SECRET else {k: _blinded(v) for k, v in value.items()}
    return [_blinded(v) for v in value] if isinstance(value, list) else value


def _clear(value: Any, session: Session) -> Any:
    """The value with its secrets opened; the passphrase is only needed where there are any."""
    if not _has_secret(value):
        return value
    clear = plain(from_checkpoint(value, session.secrets.decrypt))
    return walk(clear, lambda v: UNKNOWN_TEXT if isinstance(v, Unknown) else v)


def history(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    entries = session.backend.history(session.stack)
    size = line.number("page-size")
    if size:
        page = max(line.number("page", 1), 1)
        entries = entries[(page - 1) * size : page * size]
    if not line.has("json"):
        for entry in entries:
            print(f"{entry['kind']} {entry['result']} {_stamp(entry['startTime'])} {entry['resourceChanges']}")
        return 0
    out = []
    for entry in entries:
        values = entry.get("config") or {}
        show = line.has("show-secrets")
        secrets = session.secrets if show and values else Secrets("", None)
        out.append(
            {
                "version": 0,
                "kind": entry["kind"],
                "startTime": _stamp(entry["startTime"]),
                "message": entry.get("message", ""),
                "environment": entry.get("environment") or {},
                "config": configuration.listed(values, session.project.name, secrets, show=show),
                "result": entry["result"],
                "endTime": _stamp(entry["endTime"]),
                "resourceChanges": entry.get("resourceChanges") or {},
            }
        )
    _print(out)
    return 0


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def tag(session: Session, line: Line) -> int:
    raise CommandFailed("stack tags are not supported by file backends")


def rename(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    old, new = session.stack, session.backend.name(line.words[0])
    lock = session.backend.lock(old)
    try:
        text = json.dumps(session.backend.load(old), ensure_ascii=False)
        prefix, replaced = f"urn:pulumi:{old}::", f"urn:pulumi:{new}::"
        latest = json.loads(text.replace(prefix, replaced))
        for resource in latest.get("resources") or []:
            if resource["type"] == STACK_TYPE:
                root = resource["urn"]
                renamed = f"{root.rsplit('::', 1)[0]}::{session.project.name}-{new}"
                latest = json.loads(json.dumps(latest, ensure_ascii=False).replace(json.dumps(root)[1:-1], renamed))
                break
        session.backend.rename(old, new)
        session.backend.save(new, latest)
    finally:
        lock.unlink(missing_ok=True)
    settings = session.project.settings(old)
    if settings.path.exists():
        settings.path.rename(settings.path.with_name(settings.path.name.replace(f".{old}.", f".{new}.", 1)))
    if session.project.selected == old:
        session.project.select(new)
    print(f"Renamed {old} to {new}")
    return 0


COMMANDS: dict[str, Callable[[Session, Line], int]] = {
    "": show,
    "init": init,
    "select": select,
    "ls": ls,
    "rm": remove_command,
    "output": output,
    "export": export,
    "import": import_state,
    "history": history,
    "tag": tag,
    "rename": rename,
}
