"""What kind of machines a driver makes: how their process is started, stopped and buried."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import deployer
from deployer.sandbox.machines.setup import SHUTDOWN_S

SWITCHED_OFF = 3
"""Exit status of a machine's process whose machine powered itself off."""


def _process(setup: Path) -> list[str]:
    return [sys.executable, "-m", "deployer.sandbox.machines.process", str(setup)]


@dataclass(frozen=True)
class MachineKind:
    """One of the sandbox's drivers, as `Driver` and `MachineHandle` see it.

    Attributes:
        name: what `--driver` calls it.
        shutdown_s: seconds that an ordered shutdown may take before the machine is killed.
        command: the supervising process's command, from the path of its `MachineSetup`. That process obeys and reports
            as `deployer.sandbox.machines.orders` describes.
        buried: called with the machine's folder after its process has ended, however that came.
        options: told to each machine (`MachineSetup.options`).
        environment: variables of the supervising process, beside those that every machine's has.
    """

    name: str = "process"
    shutdown_s: float = SHUTDOWN_S
    command: Callable[[Path], list[str]] = _process
    buried: Callable[[Path], None] = lambda folder: None
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


PROCESS = MachineKind()


def base_environment(root: Path) -> dict[str, str]:
    """The machine's own process gets nothing of its starter's environment but where programs and libraries are."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(Path(deployer.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FEDSPAN_ROOT": str(root),  # the mark by which strays are found
    }
