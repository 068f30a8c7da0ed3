"""Regions, machine sizes and images that the emulated Azure offers: enough of the real ones to catch a wrong name.

Sizes are generated from the families' published rules (vCPUs, memory for each vCPU); GPU sizes are listed. Names and
figures follow Microsoft's size pages as of 2026; availability by region is not modelled, every region offers all.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

# name -> (display name, geography group, has availability zones)
REGIONS: dict[str, tuple[str, str, bool]] = {
    "australiaeast": ("Australia East", "Asia Pacific", True),
    "australiasoutheast": ("Australia Southeast", "Asia Pacific", False),
    "austriaeast": ("Austria East", "Europe", True),
    "belgiumcentral": ("Belgium Central", "Europe", True),
    "brazilsouth": ("Brazil South", "South America", True),
    "canadacentral": ("Canada Central", "Canada", True),
    "canadaeast": ("Canada East", "Canada", False),
    "centralindia": ("Central India", "Asia Pacific", True),
    "centralus": ("Central US", "US", True),
    "chilecentral": ("Chile Central", "South America", True),
    "eastasia": ("East Asia", "Asia Pacific", True),
    "eastus": ("East US", "US", True),
    "eastus2": ("East US 2", "US", True),
    "francecentral": ("France Central", "Europe", True),
    "francesouth": ("France South", "Europe", False),
    "germanynorth": ("Germany North", "Europe", False),
    "germanywestcentral": ("Germany West Central", "Europe", True),
    "indonesiacentral": ("Indonesia Central", "Asia Pacific", True),
    "israelcentral": ("Israel Central", "Middle East", True),
    "italynorth": ("Italy North", "Europe", True),
    "japaneast": ("Japan East", "Asia Pacific", True),
    "japanwest": ("Japan West", "Asia Pacific", True),
    "koreacentral": ("Korea Central", "Asia Pacific", True),
    "koreasouth": ("Korea South", "Asia Pacific", False),
    "malaysiawest": ("Malaysia West", "Asia Pacific", True),
    "mexicocentral": ("Mexico Central", "Mexico", True),
    "newzealandnorth": ("New Zealand North", "Asia Pacific", True),
    "northcentralus": ("North Central US", "US", False),
    "northeurope": ("North Europe", "Europe", True),
    "norwayeast": ("Norway East", "Europe", True),
    "norwaywest": ("Norway West", "Europe", False),
    "polandcentral": ("Poland Central", "Europe", True),
    "qatarcentral": ("Qatar Central", "Middle East", True),
    "southafricanorth": ("South Africa North", "Africa", True),
    "southafricawest": ("South Africa West", "Africa", False),
    "southcentralus": ("South Central US", "US", True),
    "southeastasia": ("Southeast Asia", "Asia Pacific", True),
    "southindia": ("South India", "Asia Pacific", False),
    "spaincentral": ("Spain Central", "Europe", True),
    "swedencentral": ("Sweden Central", "Europe", True),
    "switzerlandnorth": ("Switzerland North", "Europe", True),
    "switzerlandwest": ("Switzerland West", "Europe", False),
    "uaecentral": ("UAE Central", "Middle East", False),
    "uaenorth": ("UAE North", "Middle East", True),
    "uksouth": ("UK South", "Europe", True),
    "ukwest": ("UK West", "Europe", False),
    "westcentralus": ("West Central US", "US", False),
    "westeurope": ("West Europe", "Europe", True),
    "westus": ("West US", "US", False),
    "westus2": ("West US 2", "US", True),
    "westus3": ("West US 3", "US", True),
}
ZONES = ("1", "2", "3")


def region(text: str) -> str | None:
    """The region's name in Azure's one spelling ("West Europe" is "westeurope"), or `None`."""
    name = re.sub(r"[\s_]", "", text).lower()
    return name if name in REGIONS else None


def zones(name: str) -> tuple[str, ...]:
    """The availability zones of a region, none where it has none."""
    return ZONES if REGIONS[name][2] else ()


@dataclass(frozen=True)
class Size:
    """A machine size. `memory_gib` is RAM; `family` is the name of its quota."""

    name: str
    vcpus: int
    memory_gib: float
    family: str
    gpus: float = 0
    premium: bool = True
    arm64: bool = False

    @property
    def max_data_disks(self) -> int:
        return max(2, min(64, self.vcpus * 2))

    @property
    def accelerated(self) -> bool:
        return self.vcpus > 1


_STEPS = (2, 4, 8, 16, 32, 48, 64, 96)
# series letter -> GiB for each vCPU; variants between vCPUs and generation. "l" halves the memory, "p" is Arm.
_FAMILIES: dict[str, tuple[float, dict[int, tuple[str, ...]]]] = {
    "D": (
        4,
        {
            3: ("", "s"),
            4: ("", "s", "d", "ds", "a", "as"),
            5: ("", "s", "d", "ds", "as", "ads", "ls", "lds", "ps", "pds", "pls", "plds"),
            6: ("s", "ds", "ls", "lds", "as", "ads", "als", "alds", "ps", "pds", "pls", "plds"),
            7: ("as", "ads", "als", "alds"),
        },
    ),
    "E": (
        8,
        {
            3: ("", "s"),
            4: ("", "s", "d", "ds", "a", "as"),
            5: ("", "s", "d", "ds", "as", "ads", "ps", "pds", "bs", "bds"),
            6: ("s", "ds", "as", "ads", "ps", "pds"),
            7: ("as", "ads"),
        },
    ),
    "F": (2, {2: ("s",), 6: ("as", "als", "ams"), 7: ("as", "als", "ams")}),
}
_BURSTABLE = {
    "B1ls": (1, 0.5), "B1s": (1, 1), "B1ms": (1, 2), "B2s": (2, 4), "B2ms": (2, 8), "B4ms": (4, 16), "B8ms": (8, 32),
    "B12ms": (12, 48), "B16ms": (16, 64), "B20ms": (20, 80),
    "B2ts_v2": (2, 1), "B2ls_v2": (2, 4), "B2s_v2": (2, 8), "B4ls_v2": (4, 8), "B4s_v2": (4, 16), "B8ls_v2": (8, 16),
    "B8s_v2": (8, 32), "B16s_v2": (16, 64), "B32s_v2": (32, 128),
    "B2ats_v2": (2, 1), "B2als_v2": (2, 4), "B2as_v2": (2, 8), "B4als_v2": (4, 8), "B4as_v2": (4, 16),
    "B8als_v2": (8, 16), "B8as_v2": (8, 32), "B16as_v2": (16, 64), "B32as_v2": (32, 128),
    "B2pts_v2": (2, 1), "B2pls_v2": (2, 4), "B2ps_v2": (2, 8), "B4pls_v2": (4, 8), "B4ps_v2": (4, 16),
}  # fmt: skip
_OLDER = {
    "A1_v2": (1, 2), "A2_v2": (2, 4), "A4_v2": (4, 8), "A8_v2": (8, 16),
    "DS1_v2": (1, 3.5), "DS2_v2": (2, 7), "DS3_v2": (4, 14), "DS4_v2": (8, 28), "DS5_v2": (16, 56),
    "D1_v2": (1, 3.5), "D2_v2": (2, 7), "D3_v2": (4, 14), "D4_v2": (8, 28), "D5_v2": (16, 56),
}  # fmt: skip
_GPU = {
    "NC4as_T4_v3": (4, 28, 1, "StandardNCASv3_T4Family"),
    "NC8as_T4_v3": (8, 56, 1, "StandardNCASv3_T4Family"),
    "NC16as_T4_v3": (16, 110, 1, "StandardNCASv3_T4Family"),
    "NC64as_T4_v3": (64, 440, 4, "StandardNCASv3_T4Family"),
    "NV6ads_A10_v5": (6, 55, 1 / 6, "StandardNVADSA10v5Family"),
    "NV12ads_A10_v5": (12, 110, 1 / 3, "StandardNVADSA10v5Family"),
    "NV18ads_A10_v5": (18, 220, 1 / 2, "StandardNVADSA10v5Family"),
    "NV36ads_A10_v5": (36, 440, 1, "StandardNVADSA10v5Family"),
    "NV36adms_A10_v5": (36, 880, 1, "StandardNVADSA10v5Family"),
    "NV72ads_A10_v5": (72, 880, 2, "StandardNVADSA10v5Family"),
    "NC24ads_A100_v4": (24, 220, 1, "StandardNCADSA100v4Family"),
    "NC48ads_A100_v4": (48, 440, 2, "StandardNCADSA100v4Family"),
    "NC96ads_A100_v4": (96, 880, 4, "StandardNCADSA100v4Family"),
    "NC40ads_H100_v5": (40, 320, 1, "StandardNCadsH100v5Family"),
    "NC80adis_H100_v5": (80, 640, 2, "StandardNCadsH100v5Family"),
    "ND96asr_v4": (96, 900, 8, "standardNDASv4_A100Family"),
    "ND96amsr_A100_v4": (96, 1900, 8, "standardNDAMSv4_A100Family"),
    "ND96isr_H100_v5": (96, 1900, 8, "standardNDSv5H100Family"),
    "ND96isr_H200_v5": (96, 1850, 8, "standardNDISRH200V5Family"),
}


@functools.lru_cache(maxsize=1)
def sizes() -> dict[str, Size]:
    """All sizes, by name in lower case."""
    found: list[Size] = []
    for letter, (memory, generations) in _FAMILIES.items():
        for generation, variants in generations.items():
            for variant in variants:
                factor = 0.5 if "l" in variant else 2 if "m" in variant else 1
                family = f"standard{letter}{variant.upper()}v{generation}Family"
                found += [
                    Size(
                        f"Standard_{letter}{n}{variant}_v{generation}",
                        n,
                        n * memory * factor,
                        family,
                        premium="s" in variant,
                        arm64="p" in variant,
                    )
                    for n in _STEPS
                ]
    found.append(Size("Standard_F72s_v2", 72, 144, "standardFSv2Family"))
    for name, (vcpus, gib) in _BURSTABLE.items():
        family = "standardBSFamily" if "_" not in name else "standardBsv2Family"
        found.append(Size(f"Standard_{name}", vcpus, gib, family, arm64="p" in name))
    for name, (vcpus, gib) in _OLDER.items():
        found.append(Size(f"Standard_{name}", vcpus, gib, "standardDv2Family", premium="DS" in name))
    for name, (vcpus, memory, gpus, family) in _GPU.items():
        found.append(Size(f"Standard_{name}", vcpus, memory, family, gpus=gpus))
    return {size.name.lower(): size for size in found}


# (publisher, offer, sku) in lower case -> architecture
IMAGES: dict[tuple[str, str, str], str] = {
    ("canonical", "0001-com-ubuntu-server-jammy", "22_04-lts"): "x64",
    ("canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-gen2"): "x64",
    ("canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-arm64"): "Arm64",
    ("canonical", "0001-com-ubuntu-server-focal", "20_04-lts-gen2"): "x64",
    ("canonical", "ubuntu-22_04-lts", "server"): "x64",
    ("canonical", "ubuntu-24_04-lts", "server"): "x64",
    ("canonical", "ubuntu-24_04-lts", "server-gen1"): "x64",
    ("canonical", "ubuntu-24_04-lts", "server-arm64"): "Arm64",
    ("canonical", "ubuntu-24_04-lts", "minimal"): "x64",
    ("debian", "debian-12", "12"): "x64",
    ("debian", "debian-12", "12-gen2"): "x64",
    ("debian", "debian-12", "12-arm64"): "Arm64",
    ("debian", "debian-13", "13-gen2"): "x64",
    ("microsoft-dsvm", "ubuntu-hpc", "2204"): "x64",
    ("microsoft-dsvm", "ubuntu-hpc", "2404"): "x64",
    ("microsoft-dsvm", "ubuntu-2204", "2204-gen2"): "x64",
    ("redhat", "rhel", "9-lvm-gen2"): "x64",
}
IMAGE_VERSION = "1.0.20260901"
