"""Makes the machines that the clouds describe: starts, stops, changes and removes their processes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.faults import FaultBook
from deployer.sandbox.machines import disk, tree
from deployer.sandbox.machines.handle import MachineHandle, Nursery
from deployer.sandbox.machines.kind import PROCESS, MachineKind
from deployer.sandbox.machines.setup import Network, volume_folder
from deployer.sandbox.model import MachineSpec

_LOG = logging.getLogger(__name__)


class Driver:
    """All machines of one sandbox. Thread-safe; `reconcile` returns at once, the machines follow.

    `home/machines/NAME-xxxx` is a machine's folder, `home/volumes/…` a volume's. `public` is the block that public
    addresses come from, `private` the pool for the loopback addresses that stand for private ones.
    """

    def __init__(
        self,
        home: Path,
        public: str,
        private: AddressPool,
        faults: FaultBook | None = None,
        adopts: bool = False,
        kind: MachineKind = PROCESS,
    ) -> None:
        """`adopts`: this process is a subreaper and starts nothing but machines in sessions of their own."""
        self._home = home
        self._kind = kind
        self._volumes = home / "volumes"
        self._private = private
        self._faults = faults or FaultBook(None)
        self._network = Network(public)
        self._nursery = Nursery(adopts)
        self.on_switched_off: Callable[[MachineSpec], None] = lambda spec: None
        """Told of a machine that has powered itself off, before its state is shown."""
        self._lock = threading.RLock()
        self._handles: dict[str, MachineHandle] = {}
        self._leaving: list[MachineHandle] = []
        (home / "machines").mkdir(parents=True, exist_ok=True)
        self._volumes.mkdir(parents=True, exist_ok=True)

    def reconcile(self, specs: Iterable[MachineSpec], volumes: Iterable[str] | None = None) -> None:
        """From now on exactly the machines of `specs` exist. `volumes`: ids of the volumes that still exist; the
        folders of others are removed (None: keep all)."""
        wanted = {spec.id: spec for spec in specs}
        links = self._faults.read().links
        with self._lock:
            if links != self._network.links:
                self._network = replace(self._network, links=links)
            for gone in set(self._handles) - set(wanted):
                handle = self._handles.pop(gone)
                self._leaving.append(handle)
                handle.want(None, self._network)
            for spec in wanted.values():
                handle_now = self._handles.get(spec.id)
                if handle_now is None:
                    handle_now = self._handles[spec.id] = self._new(spec)
                handle_now.want(spec, self._network)
            self._leaving = [handle for handle in self._leaving if not handle.gone]
            if volumes is not None:
                self._prune(set(volumes))

    def _new(self, spec: MachineSpec) -> MachineHandle:
        name = re.sub(r"[^a-z0-9-]", "-", (spec.participant or spec.cloud).lower())[:24]
        folder = self._home / "machines" / f"{name}-{secrets.token_hex(2)}"
        while folder.exists():
            folder = folder.with_name(f"{name}-{secrets.token_hex(2)}")
        # Nobody but the owner: user-data (with the host key) and the machine's disk lie there.
        folder.mkdir(mode=0o700)
        bind = self._private.allocate(spec.id)

        def released() -> None:
            self._private.release(bind)

        handle = MachineHandle(spec.id, folder, self._volumes, bind, self._faults, self._nursery, released, self._kind)
        handle.on_switched_off = self.on_switched_off
        return handle

    def _prune(self, existing: set[str]) -> None:
        kept = {volume_folder(self._volumes, volume).name for volume in existing}
        for handle in [*self._handles.values(), *self._leaving]:
            kept |= {volume_folder(self._volumes, volume).name for volume in handle.volumes}
        for folder in self._volumes.iterdir():
            if folder.name not in kept:
                try:
                    disk.remove(folder)
                except OSError as error:
                    _LOG.warning("volume %s: not removed: %s", folder.name, error)

    def set_world(self, world: Mapping[str, str]) -> None:
        """Tells all machines which loopback sources stand for which addresses of the world."""
        with self._lock:
            self._network = replace(self._network, world=dict(world))
            for handle in self._handles.values():
                handle.want(handle.wanted, self._network)

    def machines(self) -> list[dict[str, Any]]:
        """What a user may want to know of each machine, those on their way out included."""
        with self._lock:
            return [handle.describe() for handle in [*self._handles.values(), *self._leaving] if not handle.gone]

    def console(self, id: str) -> str:
        """The boot log of the machine whose id is, or ends with, `id`; "" when there is none."""
        with self._lock:
            handles = [handle for key, handle in self._handles.items() if key == id or key.endswith(f"#{id}")]
        for handle in handles:
            with contextlib.suppress(OSError):
                return Path(str(handle.describe()["console"])).read_text(errors="replace")
        return ""

    def wait(self, seconds: float) -> bool:
        """Waits until every machine is what it has to be. False if that took too long."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if all(handle.settled for handle in [*self._handles.values(), *self._leaving]):
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def close(self) -> None:
        """Ends and removes all machines and volumes; returns when nothing of them is left."""
        with self._lock:
            handles = [*self._handles.values(), *self._leaving]
            self._handles.clear()
            self._leaving = []
        for handle in handles:
            handle.want(None, self._network)
        for handle in handles:
            handle.join()
        tree.end_strays(os.fsencode(f"FEDSPAN_ROOT={self._home / 'machines'}/"))
        for folder in ("machines", "volumes"):
            disk.remove(self._home / folder)
