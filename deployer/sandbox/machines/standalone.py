"""A machine without clouds or daemon, for tests of what talks to machines by SSH."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.sandbox.addresses import take_block
from deployer.sandbox.faults import FaultBook
from deployer.sandbox.machines.driver import Driver
from deployer.sandbox.machines.kind import PROCESS
from deployer.sandbox.machines.nspawn.core import Core, remove
from deployer.sandbox.machines.nspawn.kind import nspawn_kind
from deployer.sandbox.model import MachineSpec


class Machines:
    """A driver and its addresses. `put` makes or changes a machine and returns its description when that is done."""

    def __init__(self, home: Path, image: Path | None = None) -> None:
        """With `image`, the root file system of the nspawn driver, its machines; else those of the driver process."""
        home.mkdir(parents=True, exist_ok=True)
        self._block = take_block(str(home))
        self.home = home
        self.faults = FaultBook(home / "faults.json")
        self.core = Core.take(home) if image is not None else None
        self._public = self.core.public if self.core else self._block.public
        kind = nspawn_kind(home, image, self.core.name) if image and self.core else PROCESS
        self.driver = Driver(home, str(self._public.network), self._block.private, self.faults, kind=kind)
        self._specs: dict[str, MachineSpec] = {}
        self.world = {"198.51.100.10" if self.core else "127.0.0.1": "198.51.100.10"}
        self.driver.set_world(self.world)

    def address(self) -> str:
        """A free public address."""
        return self._public.allocate("test")

    def put(self, spec: MachineSpec, seconds: float = 20.0) -> dict[str, Any]:
        self._specs[spec.id] = spec
        self.driver.reconcile(self._specs.values())
        if not self.driver.wait(seconds):
            raise TimeoutError(f"machine {spec.id} is not there after {seconds} s: {self.driver.machines()}")
        return next(machine for machine in self.driver.machines() if machine["id"] == spec.id)

    def specs(self) -> list[MachineSpec]:
        return list(self._specs.values())

    def change(self, id: str, **changes: Any) -> dict[str, Any]:
        return self.put(replace(self._specs[id], **changes))

    def remove(self, *ids: str) -> None:
        """Those machines are no more; volumes stay."""
        for id in ids:
            self._specs.pop(id, None)
        self.driver.reconcile(self._specs.values())
        self.driver.wait(20.0)

    def close(self) -> None:
        self.driver.close()
        remove(self.home)
        self._block.holder.close()


@contextmanager
def machines(image: Path | None = None) -> Iterator[Machines]:
    """Machines in a temporary folder; afterwards nothing of them is left."""
    with tempfile.TemporaryDirectory(prefix="fedspan-") as home:
        some = Machines(Path(home), image)
        try:
            yield some
        finally:
            some.close()
