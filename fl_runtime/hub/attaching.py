"""The hub's local sockets: job processes attach to them, and `status` asks through the one that all share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_runtime import localsock
from fl_runtime.hub.joblink import JobLink

if TYPE_CHECKING:
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")


def serve_local(hub: Hub, path: Path) -> localsock.Server:
    """Listens on the hub's local socket; job processes attach, `status` asks."""

    def attach(connection: localsock.Connection, hello: Mapping[str, Any]) -> None:
        running = hub.jobs.running(str(hello.get("job")))
        if running is None or running.place is not None:
            connection.send({"error": "no such job is served here"})
            return
        _attach(hub, running, connection, hello)

    return localsock.Server(path, hub.status, attach, log)


def serve_own_code(hub: Hub, running: Running) -> localsock.Server:
    """The socket of one job that runs code of its own on the server: whoever attaches is that job."""
    assert running.place is not None

    def attach(connection: localsock.Connection, hello: Mapping[str, Any]) -> None:
        _attach(hub, running, connection, hello)

    return localsock.Server(running.place.socket, dict, attach, log, running.place.uid)


def _attach(hub: Hub, running: Running, connection: localsock.Connection, hello: Mapping[str, Any]) -> None:
    if running.epoch != hello.get("epoch") or not running.owns(connection.peer_pid):
        connection.send({"error": "this launch of the job is over"})
        return
    JobLink(hub, running, connection).serve()
