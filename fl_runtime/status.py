"""Ask the process that works with a state folder how it is. No gRPC, no kit needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_runtime import localsock
from fl_runtime.errors import FlError

SOCKET = "local.sock"


def read_status(state: Path, timeout: float = 5.0) -> dict[str, Any]:
    """What the hub or agent says, with `running: true`; else `{"running": false, "why": ...}`."""
    path = state / SOCKET
    if not path.exists():
        return {"running": False, "why": f"nothing runs with {state}"}
    try:
        connection = localsock.connect(path, timeout)
    except OSError as error:
        return {"running": False, "why": f"the process of {state} is gone ({error.strerror or error})"}
    try:
        connection.send({"op": "status"})
        answer = connection.receive()
    except (OSError, FlError) as error:
        return {"running": False, "why": f"the process does not answer: {error}"}
    finally:
        connection.close()
    if answer is None:
        return {"running": False, "why": "the process does not answer"}
    return {"running": True, **answer[0]}
