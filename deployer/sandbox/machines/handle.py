"""One machine as its driver sees it: what it should be, what process it is, and the thread that joins the two."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployer.sandbox.faults import FaultBook
from deployer.sandbox.machines import disk, tree
from deployer.sandbox.machines.kind import PROCESS, SWITCHED_OFF, MachineKind, base_environment
from deployer.sandbox.machines.orders import Change, Stop
from deployer.sandbox.machines.setup import MachineSetup, Network
from deployer.sandbox.model import MachineSpec

_LOG = logging.getLogger(__name__)
_MORE_S = 5.0
"""Beyond its own time for a shutdown: then a machine's process is killed."""


class Nursery:
    """Starts the machines' processes and knows them, so that no newborn is taken for an orphan.

    With `adopts`, this process is a subreaper: children that it did not start are orphans of machines that were killed.
    """

    def __init__(self, adopts: bool) -> None:
        self._adopts = adopts
        self._lock = threading.Lock()
        self._living: set[int] = set()

    def start(self, argv: list[str], **settings: Any) -> subprocess.Popen[str]:
        with self._lock:
            process = subprocess.Popen(argv, text=True, start_new_session=True, **settings)
            self._living.add(process.pid)
            return process

    def buried(self, pid: int) -> None:
        with self._lock:
            self._living.discard(pid)

    def orphans(self) -> list[int]:
        with self._lock:
            return tree.adopted(self._living) if self._adopts else []


class MachineHandle:
    """Starts a thread at once; it ends when the machine has been unwanted and is gone."""

    def __init__(
        self,
        id: str,
        folder: Path,
        volumes_folder: Path,
        bind: str,
        faults: FaultBook,
        nursery: Nursery,
        released: Callable[[], None],
        kind: MachineKind = PROCESS,
    ) -> None:
        self.id, self._folder, self._volumes_folder, self._bind = id, folder, volumes_folder, bind
        self._faults, self._nursery, self._released, self._kind = faults, nursery, released, kind
        self._kill_after_s = kind.shutdown_s + _MORE_S
        self._changed = threading.Condition()
        self.wanted: MachineSpec | None = None
        self._network = Network("127.0.0.0/32")
        self._known: MachineSpec | None = None  # the last spec, also when none is wanted any more
        self._told: tuple[MachineSpec, Network] | None = None  # what the running process was told
        self._process: subprocess.Popen[str] | None = None
        self._ended = False  # the process has ended, and nobody has looked into that yet
        self._down = False  # it ended by itself: it stays down until its cloud stops or reboots it, so that it is seen
        self._state = "pending"
        self._report: dict[str, Any] = {}
        self.gone = False
        self._thread: threading.Thread | None = None
        self.on_switched_off: Callable[[MachineSpec], None] = lambda spec: None

    # -- asked by the driver ------------------------------------------------------------------------------------

    def want(self, spec: MachineSpec | None, network: Network) -> None:
        """What the machine has to be from now on; None: it must not exist any more (for good)."""
        with self._changed:
            self.wanted, self._network = spec, network
            self._known = spec or self._known
            self._down &= spec is not None and spec.running
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name=f"machine {self._folder.name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def volumes(self) -> set[str]:
        with self._changed:
            told = self._told[0].volumes if self._told else ()
            wanted = self.wanted.volumes if self.wanted else ()
            return {volume for volume, _ in (*told, *wanted)}

    @property
    def settled(self) -> bool:
        with self._changed:
            if self.wanted is None:
                return self.gone
            if not self.wanted.running:
                return self._process is None and self._state == "stopped"
            if self._down:
                return not self._rebooted
            current = self._told == (self.wanted, self._network)
            return self._state == "running" and current and bool(self._report)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def describe(self) -> dict[str, Any]:
        with self._changed:
            spec, report = self._known, self._report
            if spec is None:
                return {"id": self.id, "state": self._state}
            alive = self._process is not None
            return {
                "id": self.id,
                "name": spec.participant or self._folder.name,
                "cloud": spec.cloud,
                "account": spec.account,
                "region": spec.region,
                "zone": spec.zone,
                "size": spec.size,
                "state": self._state,
                "public_ip": spec.public_ip,
                "private_ip": spec.private_ip,
                "bind": self._bind,
                "pid": self._process.pid if self._process else None,
                "ssh_ports": report.get("ssh_ports", []) if alive else [],
                "ports": report.get("ports", []) if alive else [],
                "egress": report.get("egress") if alive else None,
                "host_key": report.get("host_key"),
                "problems": report.get("problems", []),
                "console": str(self._folder / "console.log"),
                "root": str(self._folder / "root"),
                "tags": dict(spec.tags),
            }

    # -- the thread ---------------------------------------------------------------------------------------------

    def _live(self) -> None:
        while True:
            with self._changed:
                while not self._something_to_do():
                    self._changed.wait()
                wanted, network = self.wanted, self._network
            try:
                if self._ended:
                    self._bury()
                elif wanted is None:
                    self._end(0.0)
                    self._remove()
                    return
                elif self._process is None:
                    self._start(wanted, network)
                elif not wanted.running or self._rebooted:
                    self._end(self._kind.shutdown_s)
                else:
                    self._send(Change(wanted, network), (wanted, network))
            except OSError as error:
                _LOG.exception("machine %s", self._folder.name)
                with self._changed:
                    self._state, self._down = "crashed", True
                    self._report = {"problems": [str(error)]}
                    if wanted is not None:
                        self._told = (wanted, network)

    def _something_to_do(self) -> bool:
        if self._ended or self.wanted is None:
            return True
        if self._process is None:
            if not self.wanted.running:
                self._state = "stopped"
                return False
            return not self._down or self._rebooted
        return self._told != (self.wanted, self._network)

    @property
    def _rebooted(self) -> bool:
        """Whether its cloud has rebooted it, or stopped and started it, since its process was told anything."""
        return bool(self._told and self.wanted and self._told[0].boots != self.wanted.boots)

    def _start(self, spec: MachineSpec, network: Network) -> None:
        faults = self._faults.read()
        name = spec.participant or ""
        setup = MachineSetup(
            machine=spec,
            folder=str(self._folder),
            volumes=str(self._volumes_folder),
            bind=self._bind,
            network=network,
            never_ssh=name in faults.never_ssh,
            wrong_host_key=name in faults.wrong_host_key,
            options=self._kind.options,
        )
        path = self._folder / "setup.json"
        setup.save(path)
        with open(self._folder / "process.log", "a") as log:
            process = self._nursery.start(
                self._kind.command(path),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env={**base_environment(setup.root), **self._kind.environment},
            )
        with self._changed:
            self._process, self._told, self._report, self._state = process, (spec, network), {}, "starting"
            self._down = False
        name = f"reports of {self._folder.name}"
        threading.Thread(target=self._listen, args=(process,), name=name, daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError), self._changed:
                self._report = json.loads(line)
                if self._state == "starting":
                    self._state = "running"
        process.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _send(self, order: Stop | Change, told: tuple[MachineSpec, Network] | None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order.document()) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            # It is ending: `_listen` will say so.
            with self._changed:
                self._changed.wait_for(lambda: self._ended, timeout=self._kill_after_s)
            return
        if told is not None:
            with self._changed:
                self._told = told

    def _end(self, grace: float) -> None:
        """Ends the process and waits for it: in order within `grace` seconds, or at once with 0."""
        process = self._process
        if process is None:
            return
        with self._changed:
            self._state = "stopping"
        self._send(Stop(grace), None)
        with self._changed:
            ended = self._changed.wait_for(lambda: self._ended, timeout=self._kill_after_s)
        if not ended:
            process.kill()
            with self._changed:
                self._changed.wait_for(lambda: self._ended)
        self._bury()

    def _bury(self) -> None:
        """After the process has ended, whatever the cause: nothing that ran on the machine goes on."""
        process = self._process
        if process is not None:
            self._nursery.buried(process.pid)
        tree.end_strays(os.fsencode(f"FEDSPAN_ROOT={self._folder / 'root'}"), True, self._nursery.orphans)
        self._kind.buried(self._folder)
        code = process.returncode if process else None
        if code == SWITCHED_OFF and self._known is not None:
            self.on_switched_off(self._known)  # its cloud decides what becomes of it
        with self._changed:
            by_itself = self._state in ("starting", "running")
            self._down = by_itself and self.wanted is not None and self.wanted.running
            self._state = "crashed" if by_itself and code != SWITCHED_OFF else "stopped"
            self._ended, self._process = False, None
            if by_itself:
                ended = f"the machine's process ended ({code}): {self._folder / 'process.log'}"
                why = "the machine switched itself off" if code == SWITCHED_OFF else ended
                self._report = {**self._report, "problems": [why]}
                _LOG.warning("machine %s: %s", self._folder.name, why)
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _remove(self) -> None:
        try:
            disk.remove(self._folder)
        except OSError as error:
            _LOG.warning("machine %s: folder not removed: %s", self._folder.name, error)
        self._released()
        with self._changed:
            self.gone, self._state = True, "terminated"
