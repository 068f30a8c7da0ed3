"""The resource types of the `azure-native` package that the plugin serves, with the package's own words.

Tokens, names of path parameters and API versions are those of azure-native 3.29. What a change replaces follows that
provider: every path parameter, what Azure's API description marks as fixed at creation, and its short list besides.
Everything else is an update, which ARM may refuse, as it does for a machine's user-data.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployer.sandbox.azure.flat import fields
from deployer.sandbox.azure.schema import Kind


@dataclass(frozen=True)
class NativeType:
    """One resource type. `path` names the inputs that make up its ID, in the order of the ID."""

    token: str
    space: str
    model: str
    segments: tuple[str, ...]  # under the resource group: ("Microsoft.Network", "virtualNetworks", "subnets")
    path: tuple[str, ...]
    version: str
    replaces: frozenset[str] = frozenset()  # besides the path and what the API's description fixes
    children: tuple[str, ...] = ()  # lists that other resources may fill; left alone where the inputs name none
    required: tuple[str, ...] = ()
    named_by_uuid: bool = False

    @property
    def kind(self) -> Kind:
        return Kind("object", model=self.model)

    @property
    def name_input(self) -> str:
        return self.path[-1]

    @property
    def nested(self) -> bool:
        """A resource within another takes its logical name as its name, without random letters."""
        return len(self.path) > 2

    @property
    def located(self) -> bool:
        return "location" in self.inputs

    @property
    def inputs(self) -> frozenset[str]:
        """All top-level inputs."""
        known = {name for name, (field, _) in fields(self.space, self.model).items() if not field.read_only}
        # "type" is the service's own, but the package takes it for children (and ARM ignores it).
        return frozenset({*known, *self.path, "azureApiVersion", "type"})

    @property
    def outputs(self) -> frozenset[str]:
        return frozenset({*fields(self.space, self.model), "azureApiVersion"} - {"id"})

    @property
    def replacing(self) -> frozenset[str]:
        """The top-level inputs whose change makes a new resource."""
        fixed = {name for name, (field, _) in fields(self.space, self.model).items() if field.create_only}
        return frozenset({*self.path, *self.replaces, *fixed})

    def id(self, subscription: str, values: dict[str, object]) -> str:
        """The resource ID that the inputs name."""
        names = [str(values[name]) for name in self.path]
        base = f"/subscriptions/{subscription}/resourceGroups/{names[0]}"
        if not self.segments:
            return base
        steps = "/".join(f"{kind}/{name}" for kind, name in zip(self.segments[1:], names[1:], strict=True))
        return f"{base}/providers/{self.segments[0]}/{steps}"

    def path_inputs(self, resource_id: str) -> dict[str, str]:
        """The inputs that an ID tells. Raises ValueError for the ID of another type."""
        parts = resource_id.strip("/").split("/")
        template = ["subscriptions", None, "resourceGroups", None]
        if self.segments:
            template += ["providers", self.segments[0]]
            for kind in self.segments[1:]:
                template += [kind, None]
        fits = len(parts) == len(template) and all(
            wanted is None or wanted.lower() == part.lower() for wanted, part in zip(template, parts, strict=True)
        )
        if not fits:
            shape = "/" + "/".join("{}" if part is None else part for part in template)
            raise ValueError(f"'{resource_id}' is not the ID of an {self.token}: that has the form {shape}")
        names = [part for wanted, part in zip(template, parts, strict=True) if wanted is None]
        return dict(zip(self.path, names[1:], strict=True))


@dataclass(frozen=True)
class ExtensionType(NativeType):
    """A type of which a resource lies at any other's ID, its `scope`, and not under a resource group."""

    def id(self, subscription: str, values: dict[str, object]) -> str:
        scope, name = (str(values[key]) for key in self.path)
        return f"/{scope.strip('/')}/providers/{self.segments[0]}/{self.segments[1]}/{name}"

    def path_inputs(self, resource_id: str) -> dict[str, str]:
        scope, found, name = resource_id.rpartition(f"/providers/{self.segments[0]}/{self.segments[1]}/")
        if not found or "/" in name:
            shape = f"/{{scope}}/providers/{self.segments[0]}/{self.segments[1]}/{{}}"
            raise ValueError(f"'{resource_id}' is not the ID of an {self.token}: that has the form {shape}")
        return dict(zip(self.path, (scope, name), strict=True))


_NETWORK, _COMPUTE, _DISKS, _RESOURCES = "2024-05-01", "2024-11-01", "2024-03-02", "2024-03-01"
_N, _C, _GROUP = "Microsoft.Network", "Microsoft.Compute", "resourceGroupName"

TYPES = (
    NativeType(
        "azure-native:resources:ResourceGroup",
        "resources",
        "ResourceGroup",
        (),
        (_GROUP,),
        _RESOURCES,
    ),
    NativeType(
        "azure-native:network:VirtualNetwork",
        "network",
        "VirtualNetwork",
        (_N, "virtualNetworks"),
        (_GROUP, "virtualNetworkName"),
        _NETWORK,
        replaces=frozenset({"location"}),
        children=("subnets", "virtualNetworkPeerings"),
    ),
    NativeType(
        "azure-native:network:Subnet",
        "network",
        "Subnet",
        (_N, "virtualNetworks", "subnets"),
        (_GROUP, "virtualNetworkName", "subnetName"),
        _NETWORK,
    ),
    NativeType(
        "azure-native:network:NetworkSecurityGroup",
        "network",
        "NetworkSecurityGroup",
        (_N, "networkSecurityGroups"),
        (_GROUP, "networkSecurityGroupName"),
        _NETWORK,
        children=("securityRules",),
    ),
    NativeType(
        "azure-native:network:SecurityRule",
        "network",
        "SecurityRule",
        (_N, "networkSecurityGroups", "securityRules"),
        (_GROUP, "networkSecurityGroupName", "securityRuleName"),
        _NETWORK,
        required=("access", "direction", "priority", "protocol"),
    ),
    NativeType(
        "azure-native:network:PublicIPAddress",
        "network",
        "PublicIPAddress",
        (_N, "publicIPAddresses"),
        (_GROUP, "publicIpAddressName"),
        _NETWORK,
        replaces=frozenset({"location", "publicIPAddressVersion", "publicIPPrefix", "sku"}),
    ),
    NativeType(
        "azure-native:network:NetworkInterface",
        "network",
        "NetworkInterface",
        (_N, "networkInterfaces"),
        (_GROUP, "networkInterfaceName"),
        _NETWORK,
    ),
    NativeType(
        "azure-native:compute:Disk",
        "compute",
        "Disk",
        (_C, "disks"),
        (_GROUP, "diskName"),
        _DISKS,
        required=("creationData",),
    ),
    NativeType(
        "azure-native:compute:VirtualMachine",
        "compute",
        "VirtualMachine",
        (_C, "virtualMachines"),
        (_GROUP, "vmName"),
        _COMPUTE,
    ),
    NativeType(
        "azure-native:compute:VirtualMachineExtension",
        "compute",
        "VirtualMachineExtension",
        (_C, "virtualMachines", "extensions"),
        (_GROUP, "vmName", "vmExtensionName"),
        _COMPUTE,
    ),
    NativeType(
        "azure-native:devtestlab:GlobalSchedule",
        "devtestlab",
        "GlobalSchedule",
        ("Microsoft.DevTestLab", "schedules"),
        (_GROUP, "name"),
        "2018-09-15",
    ),
    ExtensionType(
        "azure-native:authorization:RoleAssignment",
        "authorization",
        "RoleAssignment",
        ("Microsoft.Authorization", "roleAssignments"),
        ("scope", "roleAssignmentName"),
        "2022-04-01",
        replaces=frozenset({"principalId"}),
        required=("principalId", "roleDefinitionId"),
        named_by_uuid=True,
    ),
)
