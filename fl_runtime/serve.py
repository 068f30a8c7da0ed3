"""Run a participant's process: the hub for a server's kit, the agent for a site's."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from fl_runtime.errors import BusyError, FlError
from fl_runtime.kit import read_kit
from fl_runtime.processes import lean_allocator


def serve(kit_path: Path, state: Path, labels: Mapping[str, str], store: str | None = None) -> int:
    """Block until SIGTERM or SIGINT.

    Args:
        store: where a server's state lies: the URL of a PostgreSQL database. Else the environment's FEDSPAN_STORE, else
            the kit's local/store.yml, else a SQLite file in the state folder.

    Raises:
        BusyError: another process works with the same state folder.
        KitError: the kit can't be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    lean_allocator()
    kit = read_kit(kit_path)
    if kit.role not in ("server", "site"):
        raise FlError("This kit runs nothing", participant=kit.name, why=f"it is for a {kit.role}")
    os.umask(0o077)  # a job's user may pass through the state folder; nothing there is for it, unless it is given
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = state.resolve()
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(
            "This participant runs already",
            participant=kit.name,
            why=f"another process holds {state}",
            next_step=f"python -m fl_runtime status --state {state}",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    stopped = threading.Event()
    code = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    if kit.role == "server":
        from fl_runtime.hub.main import Hub

        hub = Hub(kit, state, store or os.environ.get("FEDSPAN_STORE") or kit.store())

        def ordered(with_code: int) -> None:
            nonlocal code
            code = with_code
            stopped.set()

        hub.ordered = ordered
        hub.start()
        stopped.wait()
        hub.stop()
    else:
        from fl_runtime.agent.main import Agent

        agent = Agent(kit, state, labels)

        def wait() -> None:
            stopped.wait()
            agent.stop()

        threading.Thread(target=wait, name="stop", daemon=True).start()
        agent.run()
        code = agent.exit_code
    logging.getLogger("fedspan").info("stopped")
    return code
