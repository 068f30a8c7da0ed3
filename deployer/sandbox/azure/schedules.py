"""A machine's daily shutdown (Microsoft.DevTestLab/schedules): deallocates it every day at its minute, UTC only."""

from __future__ import annotations

import re
import time

from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.comp_machines import MACHINE
from deployer.sandbox.azure.ids import MACHINES, ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, envelope
from deployer.sandbox.azure.state import Body, Cloud, Record

SCHEDULES = "Microsoft.DevTestLab/schedules"
_TIME = re.compile(r"([01]\d|2[0-3])[0-5]\d")
PREFIX = "shutdown-computevm-"


class Schedules(ResourceKind):
    """Only what Azure's portal makes too: `shutdown-computevm-<vm>` with the shutdown task."""

    type = SCHEDULES
    space = "devtestlab"
    model = "GlobalSchedule"
    creating = "Creating"
    aliases = ("azure-native:devtestlab:GlobalSchedule", "schedule")

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        """Checks what the service does: the task, the time, the machine and the name that goes with it."""
        wanted = body.setdefault("properties", {})
        machine = cloud.find(wanted.get("targetResourceId") or "")
        if machine is None or machine.id.type != MACHINES:
            raise _refused(f"The target resource {wanted.get('targetResourceId')} is no virtual machine.")
        if resource.name.lower() != f"{PREFIX}{machine.id.name}".lower():
            raise _refused(f"The schedule of virtual machine {machine.id.name} is called {PREFIX}{machine.id.name}.")
        if wanted.get("taskType") != "ComputeVmShutdownTask":
            raise _refused(f"The task type {wanted.get('taskType')} is not supported for virtual machines.")
        if not _TIME.fullmatch(str((wanted.get("dailyRecurrence") or {}).get("time"))):
            raise _refused("The time of the daily recurrence is written as HHMM.")
        if wanted.get("timeZoneId") != "UTC":
            raise _refused(f"The sandbox knows the time zone UTC only, not {wanted.get('timeZoneId')}.")
        record = old or Record(resource, body)
        record.body = body
        cloud.records[resource.key] = record
        return record

    def show(self, cloud: Cloud, record: Record) -> Body:
        """The resource as GET answers it."""
        return envelope(record, dict(record.properties))


def _refused(text: str) -> ArmError:
    return ArmError(400, "InvalidSchedule", text)


def run_due(cloud: Cloud, since: float, now: float) -> bool:
    """Deallocate the machines whose minute began after `since`; whether there were any. Called with the lock held."""
    acted = False
    for schedule in cloud.of_type(SCHEDULES):
        wanted = schedule.properties
        machine = cloud.find(wanted["targetResourceId"])
        if wanted.get("status") != "Enabled" or machine is None or schedule.state != "Succeeded":
            continue
        if since < _latest(wanted["dailyRecurrence"]["time"], now) <= now and machine.inner["power"] != "deallocated":
            MACHINE.act(cloud, machine, "deallocate")
            acted = True
    return acted


def _latest(hhmm: str, now: float) -> float:
    """When that minute began for the last time, today or yesterday."""
    begun = now - now % 86400 + int(hhmm[:2]) * 3600 + int(hhmm[2:]) * 60
    return begun if begun <= now else begun - 86400


class Clock:
    """Remembers when the schedules were looked at last."""

    def __init__(self) -> None:
        self._last = time.time()

    def tick(self, cloud: Cloud) -> None:
        """Run what has become due."""
        since, self._last = self._last, time.time()
        with cloud.lock:
            acted = run_due(cloud, since, self._last)
        if acted:
            cloud.on_change()
