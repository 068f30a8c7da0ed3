"""How the demo ends: everything down, the sandbox too if the demo started it, and a look at what is left."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

from deployer.cli import context
from deployer.demo.place import FEDERATION, Hospital, Place
from deployer.errors import FedspanError


@dataclass
class Ending:
    """Takes the demo down, whatever it has reached."""

    place: Place
    on_premises: str
    _own_sandbox: bool = False
    _pids: set[int] = field(default_factory=set)
    _ports: set[tuple[str, int]] = field(default_factory=set)

    def begin(self) -> None:
        """Starts the sandbox if none runs; then it is the demo's to end."""
        from deployer.sandbox.client import Sandbox

        self._own_sandbox = Sandbox.find() is None
        Sandbox.ensure()

    def clear_earlier(self) -> None:
        """An earlier demo that was kept is taken down before its folder is used again."""
        from deployer.sandbox.client import Sandbox

        if self.place.is_there() and Sandbox.find() is not None:
            context.say("taking down what an earlier demo has left up")
            self.take_down()

    def take_down(self) -> None:
        """Everything down.

        Raises:
            FedspanError: something is left; its message says what.
        """
        from deployer.sandbox.client import Sandbox
        from deployer.session_down import take_down

        sandbox = Sandbox.find()
        if sandbox is None or not self.place.is_there():
            return
        self._remember(sandbox.machines())
        Hospital(self.place, self.on_premises).stop()
        take_down([], abort_jobs=True, discard_results=True)
        sandbox.settle()
        left = [item for item in sandbox.inventory() if FEDERATION in item.tags.values()]
        if self._own_sandbox:
            self._pids.add(int(sandbox.status()["pid"]))
            sandbox.stop()
        processes = sum(map(_alive, self._pids))
        ports = sum(_listens(*port) for port in self._ports)
        context.say(f"  processes {processes}, ports {ports}, left {len(left)} (asked of both clouds)")
        if processes or ports or left:
            names = ", ".join(f"{item.kind} {item.name or item.id}" for item in left)
            raise FedspanError("something is left", why=names or None, next_step="fedspan sandbox stop")

    def _remember(self, machines: list[dict[str, object]]) -> None:
        for machine in machines:
            if isinstance(pid := machine.get("pid"), int):
                self._pids.add(pid)
            ports = machine.get("ports")
            for port in ports if isinstance(ports, list) else ():
                self._ports.add((str(machine.get("public_ip")), int(port)))


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False
