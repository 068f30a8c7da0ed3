"""The machine's end of finding an interpreter that has torch: tries those that images have, and says which works.

Its text is given to the machine's Python by `-c`: standard library only. Standard input is the request, standard
output the answer, both JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

CANDIDATES = ("/opt/pytorch/bin/python", "/opt/conda/bin/python", "/opt/conda/envs/pytorch/bin/python")
"""AWS's PyTorch images, and images built around conda; the login's `python3` comes last."""

OLDEST = (3, 10)
TRY_S = 300.0
"""torch's first import reads gigabytes from a disk that a cloud fills only as it is read."""

_TRY = """\
import json, sys
import numpy, torch
print(json.dumps({"version": list(sys.version_info[:3]), "torch": str(torch.__version__), "numpy": numpy.__version__}))
"""


def find(root: str, remembered: str) -> dict[str, Any]:
    """The first interpreter that imports torch and numpy: python, version, torch, numpy; else python None, and tried.

    Args:
        root: the machine root, empty on a machine of its own.
        remembered: path of a JSON file with the answer of the last time, which holds while that interpreter is there.
    """
    known = _read(remembered)
    if known.get("python") and os.access(known["python"], os.X_OK):
        return known
    tried = []
    for candidate in [*(root + path for path in CANDIDATES), shutil.which("python3")]:
        if not candidate or not os.access(candidate, os.X_OK):
            continue
        answer = attempt(candidate)
        if isinstance(answer, str):
            tried.append(f"{candidate}: {answer}")
        elif tuple(answer["version"][:2]) < OLDEST:
            tried.append(f"{candidate}: is Python {answer['version'][0]}.{answer['version'][1]}")
        else:
            answer["python"] = candidate
            _write(remembered, answer)
            return answer
    return {"python": None, "tried": tried}


def attempt(python: str) -> dict[str, Any] | str:
    """What an interpreter has, or why it is none."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _TRY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return said[-1] if said else f"ended with status {done.returncode}"
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: str, content: dict[str, Any]) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    os.umask(0o022)
    request = json.load(sys.stdin)
    json.dump(find(request["root"], request["remembered"]), sys.stdout)
