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


def abilities() -> dict[str, Any]:
    """What this installation is: its version, the protocols it speaks, the schemas of state that it can read.

    Whoever upgrades or rolls back a machine asks before it changes anything.
    """
    from fl_runtime import version
    from fl_runtime.agent.journal import MIGRATIONS as JOURNAL
    from fl_runtime.hub.schema import MIGRATIONS as STORE
    from fl_runtime.names import PROTOCOL_MAJOR
    from fl_runtime.wire.versions import OLDEST_MAJOR

    return {
        "version": version(),
        "protocol": {"oldest": OLDEST_MAJOR, "newest": PROTOCOL_MAJOR},
        "schema": {"server": len(STORE), "site": len(JOURNAL)},
    }
