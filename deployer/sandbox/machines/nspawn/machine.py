"""One machine: `python -m deployer.sandbox.machines.nspawn.machine SETUP.json`, in namespaces of its own.

The supervisor of a system booted by systemd-nspawn. It makes disk and edge, keeps both what the cloud says, attaches
volumes, and ends when told or when whoever started it is gone. It obeys and reports as
`deployer.sandbox.machines.orders` describes. It is the first process of a PID namespace: when it is killed, the kernel
kills the whole machine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deployer.sandbox.machines.kind import SWITCHED_OFF
from deployer.sandbox.machines.nspawn import cgroup, doors, edge, firmware, tools
from deployer.sandbox.machines.nspawn.kind import SHUTDOWN_S
from deployer.sandbox.machines.nspawn.metadata import MetadataService, tree
from deployer.sandbox.machines.nspawn.rules import Edge, Link, open_ports
from deployer.sandbox.machines.nspawn.system import System
from deployer.sandbox.machines.nspawn.volumes import Attached
from deployer.sandbox.machines.orders import Reports, Stop, read
from deployer.sandbox.machines.setup import MachineSetup

_LOOK_S = 0.25
"""How often the machine is looked at: whether it lives, rebooted itself, has its host key."""
CRASHED = 4
"""Exit status when the system ended and had not been told to, nor powered itself off."""
HOST_PRIVATE = "10.0.0.10"
"""Of a machine that no cloud gave a private address."""


class NspawnMachine:
    """A machine from its boot to its end."""

    def __init__(self, setup: MachineSetup) -> None:
        self._setup = setup
        self._spec, self._network = setup.machine, setup.network
        # None: nothing was made yet, or a change failed halfway
        self._edge: Edge | None = None
        self._link: Link | None = Link()
        self._volumes = Attached(setup.volumes)
        self._system = System(setup)
        self._reports = Reports()
        self._stop: float | None = None
        self._problems: dict[str, str] = {}

    @property
    def _private(self) -> str:
        """The address that the machine itself has."""
        its = self._spec.private_ip
        return HOST_PRIVATE if not its or its == self._spec.public_ip else its

    def run(self) -> int:
        """Boots, serves, ends; the process's exit status."""
        signal.signal(signal.SIGTERM, lambda *_: self._end(SHUTDOWN_S))
        signal.signal(signal.SIGINT, lambda *_: self._end(SHUTDOWN_S))
        if not cgroup.has_systemd():
            cgroup.enter(f"{self._setup.options['group']}{Path(self._setup.folder).name}")
        self._system.prepare()
        edge.build(self._setup.options["core"], self._spec.id, self._private, self._spec.network)
        self._apply()
        if self._spec.cloud == "aws":
            hardware = edge.mac(self._spec.id)
            MetadataService(lambda: tree(self._spec, hardware), self._spec.metadata_hops)
        elif self._spec.cloud == "azure":
            doors.open_for(Path(self._setup.options["azure"]), self._spec.id.partition("#")[0])
        self._system.boot(edge.NAMESPACE)
        orders = _lines(0) if self._setup.watch_stdin else iter(lambda: None, 0)
        while self._stop is None and self._system.alive():
            # Waits for an order, but not for long.
            if (line := next(orders, "")) == "":
                self._system.log("whoever started this machine is gone")
                self._end(0.0)
            elif line is not None:
                self._obey(line)
            self._look()
        told_to_end = self._stop is not None
        self._system.end(self._stop or 0.0)
        self._volumes.close()
        if told_to_end:
            return 0
        return SWITCHED_OFF if self._system.powered_off else CRASHED

    def _end(self, grace: float) -> None:
        if self._stop is None:
            self._stop = grace

    def _obey(self, line: str) -> None:
        try:
            order = read(line, self._spec)
        except ValueError as error:
            self._system.log(f"control: not understood: {error}")
            return
        if isinstance(order, Stop):
            self._end(order.grace)
        else:
            self._spec, self._network = order.machine, order.network
            self._apply()

    def _apply(self) -> None:
        """Makes edge, link and volumes what spec and network say; what fails is shown as a problem."""
        spec, network = self._spec, self._network
        public = spec.public_ip
        wanted = Edge(
            private=self._private,
            public=public,
            egress=network.seen_as(public) if public else spec.egress_ip,
            block=network.public,
            ingress=spec.ingress,
        )
        if wanted != self._edge:
            self._edge = wanted if self._done("network", lambda: edge.apply(wanted)) else None
        link = Link(**network.links.get(spec.participant or "", {}))
        if link != self._link:
            self._link = link if self._done("link", lambda: edge.shape(link)) else None
        self._done("volume", lambda: self._volumes.attach(spec.volumes))

    def _done(self, what: str, change: Callable[[], None]) -> bool:
        """Makes a change; whether that worked. If not, it is a problem for all to see until it works."""
        try:
            change()
        except OSError as error:
            self._problems[what] = f"{what}: {error}"
            self._system.log(self._problems[what])
            return False
        self._problems.pop(what, None)
        return True

    def _look(self) -> None:
        dev = self._system.dev()
        if dev is not None:
            with contextlib.suppress(OSError):  # the system is just going down or coming up
                self._volumes.show(dev)
        self._tell()

    def _tell(self) -> None:
        leader = self._system.leader
        if leader is None:
            return
        state = {
            "pid": leader,
            "ssh_ports": [] if self._setup.never_ssh else list(firmware.ssh_ports(self._spec)),
            "ports": open_ports(self._spec.ingress) if self._spec.public_ip else [],
            "egress": None,
            "host_key": self._system.host_key(),
            "problems": list(self._problems.values()),
        }
        try:
            self._reports.tell(state)
        except OSError:
            self._end(0.0)


def _lines(descriptor: int) -> Iterator[str | None]:
    """Lines as they come; None when none came for a moment; ends when the other side is gone."""
    data = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], _LOOK_S)
        if not ready:
            yield None
            continue
        chunk = os.read(descriptor, 1 << 20)
        if not chunk:
            return
        *lines, data = (data + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


def main() -> int:
    os.environ["PATH"] = tools.PATH
    os.umask(0o022)
    return NspawnMachine(MachineSetup.load(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    sys.exit(main())
