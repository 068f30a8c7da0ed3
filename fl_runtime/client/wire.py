"""The way from a job's process to its agent: a Unix socket, taken up again when the agent comes back."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fl_runtime import localsock
from fl_runtime.errors import FlError
from fl_runtime.names import ADOPT_S

SOCKET = "FEDSPAN_CLIENT_SOCKET"
JOB = "FEDSPAN_JOB"
EPOCH = "FEDSPAN_EPOCH"
SITE = "FEDSPAN_SITE"  # the state folder of a site's agent, for a process that attaches by itself
Frame = tuple[dict[str, Any], bytes]


class Wire(Protocol):
    """What a session needs of the way to the agent. A simulated site has one inside its own process."""

    def attach(self, hello: dict[str, Any]) -> dict[str, Any]:
        """Say who we are; what the job and the site are. Raises FlError when the agent refuses."""

    def request(self, message: dict[str, Any], binary: bytes) -> Frame:
        """Ask and wait. Every request may be repeated."""

    def report(self, items: list[Mapping[str, Any]]) -> None:
        """Metrics, on their way to the server; nobody answers."""

    def close(self) -> None: ...


class AgentWire:
    """
    Args:
        path: the agent's socket.
        identity: job, epoch, and `attach` where the agent has not started this process.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = dict(identity)
        self._hello: dict[str, Any] = {}
        self._connection: localsock.Connection | None = None
        self._metrics: str | None = None

    @staticmethod
    def here(job: str | None = None, site: str | Path | None = None) -> AgentWire:
        """By the environment that the agent gives its scripts; else by a site's state folder.

        Raises:
            FlError: neither is known.
        """
        folder = site or os.environ.get(SITE)
        path = os.environ.get(SOCKET)
        if path and not site:
            return AgentWire(Path(path), {"job": os.environ.get(JOB, ""), "epoch": int(os.environ.get(EPOCH, "0"))})
        if folder:
            return AgentWire(Path(folder) / "local.sock", {"job": job or "", "epoch": 0, "attach": True})
        raise FlError(
            "This script does not run inside a federated job",
            why=f"{SOCKET} is not set",
            next_step="submit it: fedspan job submit FOLDER\n"
            "  or, on a site, for a job with `attach: true`: flare.init(site=STATE_FOLDER_OF_THE_SITE)",
        )

    def attach(self, hello: dict[str, Any]) -> dict[str, Any]:
        self._hello = {**hello, **self._identity}
        try:
            self._connection, info = self._connect({})
        except OSError as error:
            raise FlError(
                "The site's runtime does not answer", why=f"{self._path}: {error}", next_step="fedspan status"
            ) from None
        self._metrics = info.get("metrics")
        return info

    def _connect(self, more: Mapping[str, Any]) -> tuple[localsock.Connection, dict[str, Any]]:
        connection = localsock.connect(self._path)
        connection.send({**self._hello, **more})
        answer = connection.receive()
        if answer is None or "error" in answer[0]:
            connection.close()
            if answer is None:
                raise ConnectionError("the agent closed the connection")
            raise FlError("The agent refuses this process", why=str(answer[0]["error"]))
        return connection, answer[0]

    def request(self, message: dict[str, Any], binary: bytes = b"") -> Frame:
        """A lost agent costs no more than the time it is away; after `ADOPT_S` seconds the process ends with 75."""
        until: float | None = None
        while True:
            try:
                if self._connection is None:
                    self._connection, _ = self._connect({})
                self._connection.send(message, binary)
                answer = self._connection.receive()
            except OSError:
                answer = None
            if answer is not None:
                return answer
            self._drop()
            now = time.monotonic()
            until = now + ADOPT_S if until is None else until
            if now > until:
                sys.stderr.write(f"the agent did not come back within {ADOPT_S:.0f} s; this process ends\n")
                raise SystemExit(75)
            time.sleep(0.2)

    def report(self, items: list[Mapping[str, Any]]) -> None:
        """Lines of the file that the agent ships from: what is written there outlives agent and script.

        All ranks append to it, each with one write; on a full disk metrics are lost, the work goes on.
        """
        if self._metrics is None:
            return
        text = "".join(json.dumps(item) + "\n" for item in items).encode()
        with contextlib.suppress(OSError), open(self._metrics, "ab", buffering=0) as file:
            if file.write(text) < len(text):
                file.write(b"\n")

    def watch(self, task: str) -> localsock.Connection | None:
        """A second connection, on which the agent tells when the task is cancelled."""
        try:
            return self._connect({"watch": task})[0]
        except (OSError, FlError):
            return None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send({"op": "bye"})
        self._drop()
