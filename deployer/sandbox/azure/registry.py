"""The resource types that the emulator knows."""

from __future__ import annotations

from deployer.sandbox.azure.comp_disks import DISK
from deployer.sandbox.azure.comp_extensions import Extensions
from deployer.sandbox.azure.comp_machines import MACHINE
from deployer.sandbox.azure.kinds import ResourceKind
from deployer.sandbox.azure.net_addresses import PublicAddresses
from deployer.sandbox.azure.net_interfaces import Interfaces
from deployer.sandbox.azure.net_security import RULE, SecurityGroups
from deployer.sandbox.azure.net_virtual import SUBNET, VirtualNetworks
from deployer.sandbox.azure.schedules import Schedules

KINDS: dict[str, ResourceKind] = {
    kind.type: kind
    for kind in (
        VirtualNetworks(),
        SUBNET,
        SecurityGroups(),
        RULE,
        PublicAddresses(),
        Interfaces(),
        DISK,
        MACHINE,
        Extensions(),
        Schedules(),
    )
}
