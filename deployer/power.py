"""The power of a machine in a cloud: is it on, turn it off so that it bills no more, turn it on. Past the engine.

A stopped machine keeps its disks, its interface and its static address, in both clouds; those go on billing. On Azure
"stopped" bills like "running": only a deallocated machine does not, so `stop` deallocates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from deployer.errors import CloudError, RefusedError
from deployer.settings import setting

if TYPE_CHECKING:
    from deployer.settle import AwsWorld, AzureWorld

GONE = "gone"
RUNNING = "running"
OFF = frozenset({"stopped", "deallocated"})
"""States in which a machine can be turned on."""

_POLL_S = 0.5


class Power(Protocol):
    """One cloud's machines."""

    def look(self, vm_id: str) -> str:
        """`running`, `stopped`, `deallocated`, a state in between (`stopping`), or `gone`. Raises CloudError."""
        ...

    def stop(self, vm_id: str) -> None:
        """Turn it off and wait until it bills no more; nothing where it is off. Raises CloudError, RefusedError."""
        ...

    def start(self, vm_id: str) -> None:
        """Turn it on and wait until the cloud says that it runs. Raises CloudError."""
        ...


class AwsPower:
    """EC2's machines in one region."""

    def __init__(self, world: AwsWorld, region: str, participant: str) -> None:
        self._ec2 = world.ec2(region)
        self._participant = participant

    def look(self, vm_id: str) -> str:
        """See `Power.look`."""
        return self._look(vm_id)[0]

    def _look(self, vm_id: str) -> tuple[str, bool]:
        """The machine's state, and whether it is a spot machine. Raises CloudError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._ec2.describe_instances(InstanceIds=[vm_id])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidInstanceID.NotFound":
                return GONE, False
            raise self._failed("can't be asked", error) from error
        except BotoCoreError as error:
            raise self._failed("can't be asked", error) from error
        found = next((one for group in answer["Reservations"] for one in group["Instances"]), None)
        if found is None or found["State"]["Name"] in ("terminated", "shutting-down"):
            return GONE, False
        return str(found["State"]["Name"]), found.get("InstanceLifecycle") == "spot"

    def stop(self, vm_id: str) -> None:
        """See `Power.stop`. EC2 stops no one-time spot machine."""
        state, spot = self._look(vm_id)
        if state == "stopped":
            return
        there(state, self._participant)
        if spot:
            raise RefusedError(
                "a spot machine can't be stopped",
                participant=self._participant,
                why="EC2 only terminates one-time spot machines; its state volume and address would stay",
                next_step=f"fedspan down {self._participant}; fedspan up {self._participant} brings it back",
            )
        self._act(vm_id, self._ec2.stop_instances, lambda state: state == "stopped")

    def start(self, vm_id: str) -> None:
        """See `Power.start`."""
        if _at_rest(lambda: self.look(vm_id), self._participant) != RUNNING:
            self._act(vm_id, self._ec2.start_instances, lambda state: state == RUNNING)

    def _act(self, vm_id: str, call: Callable[..., Any], reached: Callable[[str], bool]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            call(InstanceIds=[vm_id])
        except (BotoCoreError, ClientError) as error:
            raise self._failed("was not obeyed", error) from error
        _until(lambda: self.look(vm_id), reached, self._participant)

    def _failed(self, how: str, error: Exception) -> CloudError:
        return CloudError(
            f"EC2 {how}", participant=self._participant, why=str(error), next_step="fedspan status --refresh"
        )


class AzurePower:
    """Virtual machines of one subscription. `vm_id` is the resource ID."""

    def __init__(self, world: AzureWorld, participant: str) -> None:
        self._machines = world.machines
        self._participant = participant

    def look(self, vm_id: str) -> str:
        """See `Power.look`."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            view = self._machines.instance_view(*_group_and_name(vm_id))
        except ResourceNotFoundError:
            return GONE
        except AzureError as error:
            raise self._failed("can't be asked", error) from error
        codes = [str(status.code) for status in view.statuses or []]
        powers = [code.partition("/")[2] for code in codes if code.startswith("PowerState/")]
        return powers[0] if powers else "starting"

    def stop(self, vm_id: str) -> None:
        """See `Power.stop`."""
        self._act(vm_id, self._machines.begin_deallocate, lambda state: state == "deallocated")

    def start(self, vm_id: str) -> None:
        """See `Power.start`."""
        _at_rest(lambda: self.look(vm_id), self._participant)
        self._act(vm_id, self._machines.begin_start, lambda state: state == RUNNING)

    def _act(self, vm_id: str, begin: Callable[..., Any], reached: Callable[[str], bool]) -> None:
        from azure.core.exceptions import AzureError

        if reached(there(self.look(vm_id), self._participant)):
            return
        try:
            begin(*_group_and_name(vm_id)).wait(setting("POWER_DEADLINE"))
        except AzureError as error:
            raise self._failed("did not obey", error) from error
        _until(lambda: self.look(vm_id), reached, self._participant)

    def _failed(self, how: str, error: Exception) -> CloudError:
        why = str(error).splitlines()[0] if str(error) else None
        return CloudError(f"Azure {how}", participant=self._participant, why=why, next_step="fedspan status --refresh")


def power_of(cloud: str, world: Any, region: str, participant: str) -> Power:
    """The power switch of a participant's cloud. `world`: as `Realm.world` gives it."""
    return AwsPower(world, region, participant) if cloud == "aws" else AzurePower(world, participant)


def _group_and_name(resource_id: str) -> tuple[str, str]:
    """Resource group and name in a machine's resource ID. Pure."""
    parts = resource_id.strip("/").split("/")
    return parts[3], parts[-1]


def there(state: str, participant: str) -> str:
    """The same state. Raises CloudError: there is no such machine any more."""
    if state == GONE:
        step = f"fedspan up {participant} --refresh"
        raise CloudError("the machine is gone", participant=participant, next_step=step)
    return state


def _at_rest(look: Callable[[], str], participant: str) -> str:
    """On or off, once what was begun (`stopping`, after a Ctrl-C in a stop) is done: till then no cloud turns it on."""
    return _until(look, lambda state: state == RUNNING or state in OFF, participant)


def _until(look: Callable[[], str], reached: Callable[[str], bool], participant: str) -> str:
    deadline = time.monotonic() + setting("POWER_DEADLINE")
    while not reached(state := there(look(), participant)):
        if time.monotonic() > deadline:
            raise CloudError(
                f"the machine is still {state}", participant=participant, next_step="fedspan status --refresh"
            )
        time.sleep(_POLL_S)
    return state
