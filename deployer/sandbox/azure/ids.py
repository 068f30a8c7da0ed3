"""Resource IDs, `/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME…]`, whatever their case."""

from __future__ import annotations

from dataclasses import dataclass

GROUP_TYPE = "Microsoft.Resources/resourceGroups"
MACHINES = "Microsoft.Compute/virtualMachines"

# How Azure itself writes the types that the emulator holds; a request may write them in any case.
KNOWN_TYPES = (
    "Microsoft.Network/virtualNetworks",
    "Microsoft.Network/virtualNetworks/subnets",
    "Microsoft.Network/networkSecurityGroups",
    "Microsoft.Network/networkSecurityGroups/securityRules",
    "Microsoft.Network/publicIPAddresses",
    "Microsoft.Network/networkInterfaces",
    "Microsoft.Compute/disks",
    MACHINES,
    "Microsoft.Compute/virtualMachines/extensions",
    "Microsoft.DevTestLab/schedules",
)
_CANONICAL = {name.lower(): name for name in KNOWN_TYPES}


@dataclass(frozen=True)
class ResourceId:
    """A parsed ID. `type` is empty for a resource group, `names` then holds the group's name only."""

    subscription: str
    group: str
    type: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def namespace(self) -> str:
        return self.type.split("/", 1)[0]

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    @property
    def parent(self) -> ResourceId | None:
        """The resource that this one lies in, `None` for a top-level one."""
        if len(self.names) < 2:
            return None
        return ResourceId(self.subscription, self.group, self.type.rsplit("/", 1)[0], self.names[:-1])

    @property
    def key(self) -> str:
        """The ID in one case: what two spellings of one resource have in common."""
        return str(self).lower()

    def child(self, kind: str, name: str) -> ResourceId:
        return ResourceId(self.subscription, self.group, f"{self.type}/{kind}", (*self.names, name))

    def __str__(self) -> str:
        if not self.type:
            return self.group_id
        namespace, *kinds = self.type.split("/")
        steps = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, self.names, strict=True))
        return f"{self.group_id}/providers/{namespace}/{steps}"


def parse(text: str) -> ResourceId | None:
    """The ID in `text`, or `None` where it is not one of a group or of a resource within a group."""
    parts = text.split("/")
    if len(parts) < 5 or parts[0] or parts[1].lower() != "subscriptions" or parts[3].lower() != "resourcegroups":
        return None
    if not all(parts[1:]):
        return None
    subscription, group, rest = parts[2], parts[4], parts[5:]
    if not rest:
        return ResourceId(subscription, group, "", (group,))
    if len(rest) < 4 or len(rest) % 2 or rest[0].lower() != "providers":
        return None
    written = "/".join((rest[1], *rest[2::2]))
    return ResourceId(subscription, group, _CANONICAL.get(written.lower(), written), tuple(rest[3::2]))
