"""A systemd timer of fedspan on a machine in a cloud, with the service that it starts: put there, or taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.deallocation import Deallocation, put_script
from deployer.unit_file import UNITS

if TYPE_CHECKING:
    from deployer.ssh import Machine


def put_timer(machine: Machine, name: str, timer: str, service: str, how: Deallocation | None = None) -> bool:
    """Bring `name`.timer and `name`.service there, and what the service needs to deallocate; whether anything changed.

    The units are written on every machine of a cloud; systemd is told where it runs.
    """
    facts, unit = machine.facts(), f"{name}.timer"
    put_script(machine, how)
    changed = machine.put_file(service.encode(), facts.path(f"{UNITS}/{name}.service"), privileged=True).changed
    changed |= machine.put_file(timer.encode(), facts.path(f"{UNITS}/{unit}"), privileged=True).changed
    if facts.systemd and changed:
        machine.run_privileged(["systemctl", "daemon-reload"])
        machine.run_privileged(["systemctl", "enable", "--quiet", unit])
        machine.run_privileged(["systemctl", "restart", unit])
    elif facts.systemd:
        machine.run_privileged(["systemctl", "enable", "--now", "--quiet", unit])
    return changed


def drop_timer(machine: Machine, name: str) -> bool:
    """Take them away; whether they were there."""
    facts, unit = machine.facts(), f"{name}.timer"
    paths = [facts.path(f"{UNITS}/{file}") for file in (unit, f"{name}.service")]
    if machine.run_privileged(["test", "-e", paths[0]], check=False).status != 0:
        return False
    if facts.systemd:
        machine.run_privileged(["systemctl", "disable", "--now", "--quiet", unit], check=False)
    machine.run_privileged(["rm", "-f", *paths])
    return True
