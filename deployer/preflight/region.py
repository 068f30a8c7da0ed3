"""Whether the region is there and may be used by this account or subscription."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking


def check(place: Place) -> Iterable[Finding]:
    """AWS: known and opted in. Azure: among the subscription's locations."""
    if place.cloud == "aws":
        with asking("ec2:DescribeRegions"):
            found = place.aws("ec2").describe_regions(AllRegions=True)["Regions"]
        status = {entry["RegionName"]: entry.get("OptInStatus", "opt-in-not-required") for entry in found}
        if place.region not in status:
            yield _refused(place, "AWS knows no such region", "mend `region:` in federation.yml")
        elif status[place.region] == "not-opted-in":
            steps = f"aws account enable-region --region-name {place.region}, and wait until it is enabled"
            yield _refused(place, "this account has not opted in to it", steps)
        else:
            yield Finding("region", f"{place.region} is enabled")
        return
    with asking("Microsoft.Resources/subscriptions/locations/read"):
        document, _ = place.azure.get("/locations", "2022-12-01")
    names = {entry["name"].lower() for entry in document.get("value", [])}
    if place.region.lower() in names:
        yield Finding("region", f"{place.region} is there")
    else:
        yield _refused(place, "this subscription has no such location", "mend `region:` in federation.yml")


def _refused(place: Place, why: str, next_step: str) -> Finding:
    return Finding("region", f"{place.region} can't be used", "refused", why=why, next_step=next_step)
