"""What passes between a driver and a machine's process: orders to its standard input, reports from its standard output.

One JSON object a line. Orders: `stop` (with the seconds that an ordered shutdown may take; 0: off at once) and `change`
(what the machine and its network have to be from now on). A report says how the running machine is, and is sent when
that has changed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from deployer.sandbox.machines.setup import Network
from deployer.sandbox.model import MachineSpec, machine_from_json, machine_to_json


@dataclass(frozen=True)
class Stop:
    """Shut down in order within `grace` seconds, or switch off at once with 0."""

    grace: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"do": "stop", "grace": self.grace}


@dataclass(frozen=True)
class Change:
    """Be from now on what these say."""

    machine: MachineSpec
    network: Network

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"do": "change", "machine": machine_to_json(self.machine), "network": asdict(self.network)}


def read(line: str | bytes, booted: MachineSpec) -> Stop | Change:
    """An order to a machine that was booted as `booted`: what a running machine can't change stays as it was then.

    Raises:
        ValueError: it is none.
    """
    try:
        order = json.loads(line)
        if order["do"] == "stop":
            return Stop(float(order["grace"]))
        if order["do"] == "change":
            kept = {name: getattr(booted, name) for name in ("user_data", "login_keys", "private_ip")}
            return Change(replace(machine_from_json(order["machine"]), **kept), Network(**order["network"]))
        raise ValueError(f"unknown order {order['do']!r}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


class Reports:
    """A machine's reports of itself."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def tell(self, state: dict[str, Any]) -> None:
        """Report that the machine runs, and how, if it is not as reported last. Raises OSError: nobody listens."""
        if state == self._last:
            return
        self._last = state
        sys.stdout.write(json.dumps({"event": "running", **state}) + "\n")
        sys.stdout.flush()
