"""The machine's end of a kit's `local/`: what its owner edited there stays, what is still as it was pushed follows.

Its text is given to the machine's Python by `-c`: standard library only. Standard input is the request, standard
output the answer, both JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any


def settle(folder: str, record: str, files: Mapping[str, str], always: list[str], owner: str) -> dict[str, Any]:
    """Writes what may be written.

    Args:
        folder: `local/` of the kit on this machine.
        record: JSON file with the hash of each file as a push has last written it; what is not in it is its owner's.
        files: name -> wanted text.
        always: names that a push owns: written whatever stands there.
        owner: user who gets them, empty for the one that this runs as.

    Returns:
        written: names that changed; kept: names that differ from what is wanted, and stay; pushed: the record's hash.
    """
    pushed = _read(record)
    written, kept = [], []
    for name, text in sorted(files.items()):
        path, wanted = os.path.join(folder, name), _hash(text.encode())
        try:
            with open(path, "rb") as file:
                there = _hash(file.read())
        except FileNotFoundError:
            there = ""
        if there == wanted:
            pushed[name] = wanted
            continue
        if there and pushed.get(name) != there and name not in always:
            kept.append(name)
            continue
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _write(path, text, owner)
        if owner:
            shutil.chown(folder, owner, owner)
        pushed[name] = wanted
        written.append(name)
    if _read(record) != pushed:
        _write(record, json.dumps(pushed, sort_keys=True), "")
    told = json.dumps({name: value for name, value in pushed.items() if name not in always}, sort_keys=True)
    return {"written": written, "kept": kept, "pushed": _hash(told.encode())}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: str, text: str, owner: str) -> None:
    new = f"{path}.new-{os.getpid()}"
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(new, 0o644)
    if owner:
        shutil.chown(new, owner, owner)
    os.replace(new, path)


if __name__ == "__main__":
    os.umask(0o022)
    json.dump(settle(**json.load(sys.stdin)), sys.stdout)
