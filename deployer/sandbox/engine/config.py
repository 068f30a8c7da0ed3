"""A stack's configuration: `PROJECT:KEY` -> a text, a structure, or a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .passphrase import Secrets
from .problems import CommandFailed


def full_key(key: str, project: str) -> str:
    """`region` is `PROJECT:region`."""
    if key.count(":") == 2 and key.split(":")[1] == "config":
        namespace, _, name = key.split(":")
        return f"{namespace}:{name}"
    return key if ":" in key else f"{project}:{key}"


def decrypted(config: Mapping[str, Any], project: str, secrets: Secrets) -> dict[str, tuple[str, bool]]:
    """Key -> (text, whether it is a secret); a structure becomes its JSON."""
    out = {}
    for key, value in config.items():
        secret = _has_secret(value)
        clear = _open(value, secrets) if secret else value
        out[full_key(key, project)] = (_text(clear), secret)
    return out


def _has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_secret(value) or any(_has_secret(v) for v in value.values())
    return isinstance(value, list) and any(_has_secret(v) for v in value)


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"} and isinstance(value["secure"], str)


def _open(value: Any, secrets: Secrets) -> Any:
    if _is_secret(value):
        return secrets.decrypt(value["secure"])
    if isinstance(value, dict):
        return {k: _open(v, secrets) for k, v in value.items()}
    return [_open(v, secrets) for v in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (dict, list)) else str(value)


def listed(config: Mapping[str, Any], project: str, secrets: Secrets, *, show: bool) -> dict[str, dict[str, Any]]:
    """The configuration as `config --json` prints it."""
    out = {}
    for key, value in sorted(config.items()):
        secret = _has_secret(value)
        entry: dict[str, Any] = {"secret": secret}
        if not secret or show:
            clear = _open(value, secrets) if secret else value
            entry = {"value": _text(clear), "secret": secret}
            if isinstance(clear, (dict, list)):
                entry["objectValue"] = clear
        out[full_key(key, project)] = entry
    return out


def set_value(
    config: dict[str, Any], key: str, value: str, project: str, secrets: Secrets, *, secret: bool, path: bool
) -> None:
    """Sets a value in place; with `path`, the key names a place inside a structure."""
    stored: Any = {"secure": secrets.encrypt(value)} if secret else value
    namespace, _, name = full_key(key, project).partition(":")
    if not path:
        config[f"{namespace}:{name}"] = stored
        return
    from .paths import parse

    head, *rest = parse(name)
    if not secret and value in {"true", "false"}:
        stored = value == "true"
    elif not secret and value.lstrip("-").isdigit():
        stored = int(value)
    top = f"{namespace}:{head}"
    if not rest:
        config[top] = stored
        return
    place = config.setdefault(top, [] if isinstance(rest[0], int) else {})
    for part, following in zip(rest, [*rest[1:], None], strict=True):
        empty: Any = stored if following is None else [] if isinstance(following, int) else {}
        if isinstance(place, list):
            index = int(part)
            if index > len(place):
                raise CommandFailed(f"array index {index} out of range")
            if index == len(place):
                place.append(empty)
            elif following is None:
                place[index] = empty
            place = place[index]
        elif isinstance(place, dict):
            if following is None:
                place[str(part)] = empty
            place = place.setdefault(str(part), empty)
        else:
            raise CommandFailed(f"{key}: a value stands where a map or a list is expected")


def remove_value(config: dict[str, Any], key: str, project: str, *, path: bool) -> None:
    namespace, _, name = full_key(key, project).partition(":")
    if not path:
        config.pop(f"{namespace}:{name}", None)
        return
    from .paths import parse

    head, *rest = parse(name)
    place: Any = config
    part: Any
    for part in [f"{namespace}:{head}", *rest][:-1]:
        place = place[part] if isinstance(place, list) or part in place else {}
    last: Any = [f"{namespace}:{head}", *rest][-1]
    if isinstance(place, list):
        del place[last]
    else:
        place.pop(last, None)
