"""Which Azure regions have availability zones.

From Microsoft's "Azure regions list" (learn.microsoft.com/azure/reliability/regions-list), read 2026-11. A region that
is missing here gets a regional address, which every machine without a zone can use; naming a zone there is an error.
"""

from __future__ import annotations

# fmt: off
REGIONS_WITH_ZONES = frozenset((
    "australiaeast", "austriaeast", "belgiumcentral", "brazilsouth", "canadacentral", "centralindia", "centralus",
    "chilecentral", "eastasia", "eastus", "eastus2", "francecentral", "germanywestcentral", "indonesiacentral",
    "israelcentral", "italynorth", "japaneast", "japanwest", "koreacentral", "malaysiawest", "mexicocentral",
    "newzealandnorth", "northeurope", "norwayeast", "polandcentral", "qatarcentral", "southafricanorth",
    "southcentralus", "southeastasia", "spaincentral", "swedencentral", "switzerlandnorth", "uaenorth", "uksouth",
    "westeurope", "westus2", "westus3",
))
# fmt: on


def has_zones(region: str) -> bool:
    """Whether a zone-redundant address can be had in this region (programmatic name, `westeurope`)."""
    return region in REGIONS_WITH_ZONES
