"""What Azure holds of a participant, and its deletion. Everything is in the one resource group whose name is fixed; the
group's tags say whose it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from deployer.errors import CloudError, RefusedError
from deployer.settle.decide import RESOURCE_GROUP
from deployer.settle.model import AGAIN, Found, OnStep, Whose, undeleted
from stacks.names import assignment_name, azure_name, belongs_to, logical_name, tag_key

if TYPE_CHECKING:
    from deployer.cloud_clients import AzureClients

DELETE_LIMIT_S = 900
"""How long one deletion may take, waiting for what is still in use included: a resource group takes minutes."""

_POLL_S = 2.0

_AT_REST = ("Succeeded", "Failed", "Canceled")

VNET = "azure-native:network:VirtualNetwork"
SUBNET = "azure-native:network:Subnet"
FIREWALL = "azure-native:network:NetworkSecurityGroup"
RULE = "azure-native:network:SecurityRule"
ADDRESS = "azure-native:network:PublicIPAddress"
INTERFACE = "azure-native:network:NetworkInterface"
DISK = "azure-native:compute:Disk"
MACHINE = "azure-native:compute:VirtualMachine"
EXTENSION = "azure-native:compute:VirtualMachineExtension"
SHUTDOWN = "azure-native:devtestlab:GlobalSchedule"

ROLE = "azure-native:authorization:RoleAssignment"

_SHUTDOWN_API = "2018-09-15"
_ROLE_API = "2022-04-01"

# a role is no part of the group: it is taken away before the machine that it is about
_ORDER = (ROLE, RESOURCE_GROUP, SHUTDOWN, EXTENSION, MACHINE, DISK, INTERFACE, ADDRESS, RULE, SUBNET, VNET, FIREWALL)

# ARM's words for "something else works on it" and "still in use": time mends them.
_PATIENCE = frozenset(
    (
        "AnotherOperationInProgress",
        "OperationNotAllowed",
        "Conflict",
        "NicInUse",
        "NicReservedForAnotherVm",
        "InUseSubnetCannotBeDeleted",
        "InUseNetworkSecurityGroupCannotBeDeleted",
        "PublicIPAddressCannotBeDeleted",
        "ResourceGroupBeingDeleted",
        "RetryableError",
        "TooManyRequests",
    )
)


class AzureWorld:
    """One subscription, by its clients."""

    def __init__(self, clients: AzureClients) -> None:
        self._clients = clients
        self._groups = clients.resources.resource_groups
        self._network, self._compute = clients.network, clients.compute

    def find(self, whose: Whose) -> list[Found]:
        """Everything in the participant's resource group, the group included; nothing when the group is another's."""
        group = self._group(whose)
        if group is None or not belongs_to("azure", group.tags, **vars(whose)):
            return []
        try:
            return [_found(RESOURCE_GROUP, group, whose, group.location), *self._inside(group, whose)]
        except ResourceNotFoundError:
            # The group went while its contents were asked for.
            return [] if self._group(whose) is None else self.find(whose)
        except AzureError as error:
            raise _failed("Azure can't be asked", whose, error) from error

    def marked(self, federation: str) -> list[Whose]:
        """Everybody whose resource group says by its tags that it is this federation's."""
        names = ("federation", "deployment", "participant")
        wanted = f"tagName eq '{tag_key('azure', 'federation')}' and tagValue eq '{federation}'"
        try:
            groups = list(self._groups.list(filter=wanted))
        except AzureError as error:
            raise CloudError("Azure can't be asked", why=str(error).splitlines()[0], next_step=AGAIN) from error
        told = [[str((group.tags or {}).get(tag_key("azure", name)) or "") for name in names] for group in groups]
        found = {Whose(*tags) for tags in told if all(tags) and tags[0] == federation}
        return sorted(found, key=lambda whose: (whose.participant, whose.deployment))

    def zones(self, size: str) -> tuple[str, ...]:
        """None: a machine without a zone is placed in any of them already."""
        return ()

    def check(self, whose: Whose) -> None:
        """Refuse when the resource group of the fixed name is there and somebody else's."""
        group = self._group(whose)
        if group is None or belongs_to("azure", group.tags, **vars(whose)):
            return
        tags: Mapping[str, str] = group.tags or {}
        other = {name: tags.get(tag_key("azure", name)) for name in ("federation", "deployment", "participant")}
        said = ", ".join(f"{name} {value}" for name, value in other.items() if value) or "no tags of fedspan"
        raise RefusedError(
            f"resource group {group.name} exists and is not this deployment's",
            participant=whose.participant,
            why=f"it has {said}",
            next_step="use another federation's name or another subscription; or, if it is yours, take it down there",
        )

    def delete(self, found: Iterable[Found], on_step: OnStep) -> None:
        """Delete exactly these and wait until they are gone. Raises `CloudError`."""
        things = sorted(found, key=lambda t: _ORDER.index(t.type))
        gone: list[str] = []
        for thing in things:
            here = thing.id.lower()
            if any(here.startswith(f"{parent}/") for parent in gone) or thing.goes_with.lower() in gone:
                continue
            on_step(f"deleting {thing.title}")
            _patiently(thing, self._deletion(thing))
            gone.append(here)

    @property
    def machines(self) -> Any:
        """The operations on virtual machines."""
        return self._compute.virtual_machines

    @property
    def rules(self) -> Any:
        """The operations on security rules."""
        return self._network.security_rules

    def _group(self, whose: Whose) -> Any | None:
        try:
            return self._groups.get(azure_name(whose.federation, whose.participant, "rg"))
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise _failed("Azure can't be asked", whose, error) from error

    def _inside(self, group: Any, whose: Whose) -> list[Found]:
        inside, region = group.name, group.location
        found: list[Found] = []

        def add(kind: str, entry: Any, **more: Any) -> None:
            found.append(_found(kind, entry, whose, region, **more))

        machines = list(self._compute.virtual_machines.list(inside))
        for machine in machines:
            size = getattr(machine.hardware_profile, "vm_size", "") or ""
            add(MACHINE, machine, created=machine.time_created, size=str(getattr(size, "value", size)))
            if role := self._role(machine.id):
                add(ROLE, role, name=logical_name(whose.participant, "deallocate-role"))
            for extension in self._compute.virtual_machine_extensions.list(inside, machine.name).value or []:
                add(EXTENSION, extension)
        for shutdown in self._shutdowns(inside):
            add(SHUTDOWN, shutdown)
        os_disk = azure_name(whose.federation, whose.participant, "os").lower()
        for disk in self._compute.disks.list_by_resource_group(inside):
            gib = int(disk.disk_size_gb or 0)
            # The OS disk is in no state: its machine makes it and takes it away.
            if disk.name.lower() == os_disk:
                name = logical_name(whose.participant, "os-disk")
                add(DISK, disk, name=name, goes_with=disk.managed_by or "", created=disk.time_created, gib=gib)
            else:
                add(DISK, disk, created=disk.time_created, gib=gib)
        for interface in self._network.network_interfaces.list(inside):
            add(INTERFACE, interface)
        for address in self._network.public_ip_addresses.list(inside):
            add(ADDRESS, address)
        for vnet in self._network.virtual_networks.list(inside):
            add(VNET, vnet)
            for subnet in self._network.subnets.list(inside, vnet.name):
                add(SUBNET, subnet)
        for firewall in self._network.network_security_groups.list(inside):
            add(FIREWALL, firewall)
            for rule in self._network.security_rules.list(inside, firewall.name):
                add(RULE, rule)
        return found

    def _shutdowns(self, group: str) -> list[Any]:
        """The machines' daily shutdowns, of whose provider no client is installed."""
        path = f"/resourceGroups/{group}/providers/Microsoft.DevTestLab/schedules"
        try:
            document, _ = self._clients.get(path, _SHUTDOWN_API)
        except HttpResponseError as error:
            if getattr(error.error, "code", "") == "MissingSubscriptionRegistration":
                return []  # nothing was ever made with a provider that the subscription does not use
            raise
        return [
            SimpleNamespace(
                id=one["id"], tags=one.get("tags"), provisioning_state=one["properties"].get("provisioningState")
            )
            for one in document["value"]
        ]

    def _role(self, machine: str) -> Any | None:
        """The role by which a machine deallocates itself: the one of the fixed name, as others are not ours."""
        inside = machine.split("/", 3)[3]  # below the subscription
        path = f"/{inside}/providers/Microsoft.Authorization/roleAssignments/{assignment_name(machine)}"
        try:
            document, _ = self._clients.get(path, _ROLE_API)
        except HttpResponseError as error:
            if error.status_code in (403, 404):
                return None  # who may not look at roles has made none
            raise
        return SimpleNamespace(id=document["id"])

    def _deletion(self, thing: Found) -> Callable[[], Any]:
        """The call that starts a deletion: names are read from the resource ID's pairs of kind and name."""
        if thing.type in (SHUTDOWN, ROLE):
            by_id = self._clients.resources.resources.begin_delete_by_id
            version = _ROLE_API if thing.type == ROLE else _SHUTDOWN_API
            return lambda: by_id(thing.id, api_version=version)
        parts = thing.id.strip("/").split("/")
        pairs = {parts[i].lower(): parts[i + 1] for i in range(0, 4, 2)}
        group, names = pairs["resourcegroups"], parts[7::2]
        operations = {
            RESOURCE_GROUP: self._groups,
            EXTENSION: self._compute.virtual_machine_extensions,
            MACHINE: self._compute.virtual_machines,
            DISK: self._compute.disks,
            INTERFACE: self._network.network_interfaces,
            ADDRESS: self._network.public_ip_addresses,
            RULE: self._network.security_rules,
            SUBNET: self._network.subnets,
            VNET: self._network.virtual_networks,
            FIREWALL: self._network.network_security_groups,
        }[thing.type]
        return lambda: operations.begin_delete(group, *names)


def _found(kind: str, entry: Any, whose: Whose, region: str, name: str = "", **more: Any) -> Found:
    tags = getattr(entry, "tags", None) or {}
    name = name or tags.get(tag_key("azure", "logical-name"), "")
    if not name and kind == SUBNET:
        name = logical_name(whose.participant, "subnet")
    if not name and kind == RULE:
        name = logical_name(whose.participant, entry.name)
    state = getattr(entry, "provisioning_state", None)
    if state is None and getattr(entry, "properties", None) is not None:
        state = getattr(entry.properties, "provisioning_state", None)
    busy = bool(state) and str(getattr(state, "value", state)) not in _AT_REST
    return Found("azure", kind, entry.id, name, region, busy=busy, **more)


def _patiently(thing: Found, begin: Callable[[], Any]) -> None:
    """Delete and wait for the end; begin again while ARM says that something else is at work on it."""
    until = time.monotonic() + DELETE_LIMIT_S
    while True:
        try:
            poller = begin()
            poller.wait(max(1.0, until - time.monotonic()))
            if poller.done():
                poller.result()
                return
            raise undeleted(thing, "Azure does not finish it")
        except ResourceNotFoundError:
            return
        except HttpResponseError as error:
            code = str(getattr(error.error, "code", "") or "")
            busy = error.status_code in (409, 429) or code in _PATIENCE
            if not busy or time.monotonic() > until:
                raise undeleted(thing, f"{code}: {error.message}") from error
        except AzureError as error:
            raise undeleted(thing, str(error)) from error
        time.sleep(_POLL_S)


def _failed(what: str, whose: Whose, error: AzureError) -> CloudError:
    why = str(error).splitlines()[0] if str(error) else None
    return CloudError(what, participant=whose.participant, why=why, next_step=AGAIN)
