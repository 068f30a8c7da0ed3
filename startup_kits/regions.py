"""Which legal area each cloud region lies in, for `residency`.

Sources: the clouds' public lists of regions (AWS "Regions and Availability Zones", Azure "geographies"), read 2026-11.
A region that is not listed here can be allowed by its own name: `residency: [EU, eu-new-1]`.
"""

from __future__ import annotations

import difflib

_AREAS: dict[str, dict[str, tuple[str, ...]]] = {
    "EU": {
        "aws": ("eu-central-1", "eu-west-1", "eu-west-3", "eu-north-1", "eu-south-1", "eu-south-2"),
        "azure": (
            *("westeurope", "northeurope", "germanywestcentral", "germanynorth", "francecentral", "francesouth"),
            *("swedencentral", "swedensouth", "polandcentral", "italynorth", "spaincentral", "austriaeast"),
            *("belgiumcentral", "denmarkeast"),
        ),
    },
    "NO": {"aws": (), "azure": ("norwayeast", "norwaywest")},
    "CH": {"aws": ("eu-central-2",), "azure": ("switzerlandnorth", "switzerlandwest")},
    "UK": {"aws": ("eu-west-2",), "azure": ("uksouth", "ukwest")},
    "US": {
        "aws": ("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
        "azure": (
            *("eastus", "eastus2", "eastus3", "centralus", "northcentralus", "southcentralus", "westcentralus"),
            *("westus", "westus2", "westus3"),
        ),
    },
    "CA": {"aws": ("ca-central-1", "ca-west-1"), "azure": ("canadacentral", "canadaeast")},
    "MX": {"aws": ("mx-central-1",), "azure": ("mexicocentral",)},
    "BR": {"aws": ("sa-east-1",), "azure": ("brazilsouth", "brazilsoutheast")},
    "AU": {
        "aws": ("ap-southeast-2", "ap-southeast-4"),
        "azure": ("australiaeast", "australiasoutheast", "australiacentral", "australiacentral2"),
    },
    "NZ": {"aws": ("ap-southeast-6",), "azure": ("newzealandnorth",)},
    "JP": {"aws": ("ap-northeast-1", "ap-northeast-3"), "azure": ("japaneast", "japanwest")},
    "KR": {"aws": ("ap-northeast-2",), "azure": ("koreacentral", "koreasouth")},
    "IN": {
        "aws": ("ap-south-1", "ap-south-2"),
        "azure": ("centralindia", "southindia", "westindia", "jioindiawest", "jioindiacentral"),
    },
    "SG": {"aws": ("ap-southeast-1",), "azure": ("southeastasia",)},
    "HK": {"aws": ("ap-east-1",), "azure": ("eastasia",)},
    "ID": {"aws": ("ap-southeast-3",), "azure": ("indonesiacentral",)},
    "MY": {"aws": ("ap-southeast-5",), "azure": ("malaysiawest",)},
    "TH": {"aws": ("ap-southeast-7",), "azure": ()},
    "TW": {"aws": ("ap-east-2",), "azure": ("taiwannorth",)},
    "IL": {"aws": ("il-central-1",), "azure": ("israelcentral",)},
    "AE": {"aws": ("me-central-1",), "azure": ("uaenorth", "uaecentral")},
    "BH": {"aws": ("me-south-1",), "azure": ()},
    "QA": {"aws": (), "azure": ("qatarcentral",)},
    "ZA": {"aws": ("af-south-1",), "azure": ("southafricanorth", "southafricawest")},
}
#: Areas made of others.
_UNIONS = {"EEA": ("EU", "NO"), "EUROPE": ("EU", "NO", "CH", "UK")}

AREAS: tuple[str, ...] = (*_AREAS, *_UNIONS)


def regions_of(area: str, cloud: str) -> tuple[str, ...]:
    """The regions of one cloud (`aws` or `azure`) in an area, empty for an unknown area."""
    parts = _UNIONS.get(area.upper(), (area.upper(),))
    return tuple(region for part in parts for region in _AREAS.get(part, {}).get(cloud, ()))


def known_regions(cloud: str) -> tuple[str, ...]:
    """Every region of a cloud that this table knows."""
    return tuple(region for area in _AREAS for region in regions_of(area, cloud))


def area_of(cloud: str, region: str) -> str | None:
    """The area (`EU`, `US`, …) that a region lies in, None for one that the table does not know."""
    return next((area for area in _AREAS if region in regions_of(area, cloud)), None)


def allowed(residency: list[str], cloud: str, region: str) -> bool:
    """Whether a region lies in one of the areas, or is itself named among them."""
    return any(region == entry or region in regions_of(entry, cloud) for entry in residency)


def nearest(cloud: str, region: str) -> str | None:
    """The known region spelt most like this one, for error messages."""
    return next(iter(difflib.get_close_matches(region, known_regions(cloud), n=1, cutoff=0.75)), None)
