"""Whether there is room for a machine: quotas of cores, and places that a fault has emptied."""

from __future__ import annotations

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.comp_checks import size_of
from deployer.sandbox.azure.state import Body, Cloud, Record

CORES_IN_A_REGION = 350
CORES_OF_A_FAMILY = 350


def check_quota(cloud: Cloud, machine: Record | None, subscription: str, body: Body, size: catalogue.Size) -> None:
    """The cores of a region and of a size's family, counting every machine that exists, deallocated ones too."""
    place = body["location"]
    spot = body["properties"].get("priority") in ("Spot", "Low")
    families = ["lowPriorityCores"] if spot else ["cores", size.family]
    for family in families:
        default = CORES_OF_A_FAMILY if family == size.family else CORES_IN_A_REGION
        limit = cloud.quotas.get((subscription, place, family), default)
        used = usage(cloud, subscription, place, family, without=machine)
        if used + size.vcpus > limit:
            shown = {"cores": "Total Regional Cores", "lowPriorityCores": "LowPriorityCores"}.get(
                family, f"{family} Cores"
            )
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"Operation could not be completed as it results in exceeding approved {shown} quota. Additional"
                f" details - Deployment Model: Resource Manager, Location: {place}, Current Limit: {limit}, Current"
                f" Usage: {used}, Additional Required: {size.vcpus}, (Minimum) New Limit Required:"
                f" {used + size.vcpus}. Setup Alerts when Quota reaches threshold. Learn more at"
                " https://aka.ms/quotamonitoringalerting .",
            )


def usage(cloud: Cloud, subscription: str, place: str, family: str, without: Record | None = None) -> int:
    """The cores in use of one quota."""
    total = 0
    for other in cloud.of_type("Microsoft.Compute/virtualMachines"):
        if other is without or other.location != place or other.id.subscription != subscription:
            continue
        size = size_of(other.properties)
        spot = other.properties.get("priority") in ("Spot", "Low")
        if family == "lowPriorityCores":
            total += size.vcpus if spot else 0
        elif not spot and family in ("cores", size.family):
            total += size.vcpus
    return total


def no_capacity(cloud: Cloud, body: Body, size: catalogue.Size) -> ArmError | None:
    """A capacity fault that is found when the machine is placed, not when the request is read."""
    zones, place = body.get("zones") or [], body["location"]
    if zones and cloud.faults.no_capacity(*(f"{place}-{zone}" for zone in zones)):
        return ArmError(
            409,
            "ZonalAllocationFailed",
            f"Allocation failed. We do not have sufficient capacity for the requested VM size in this zone"
            f" ({place}, zone {zones[0]}, {size.name}). Read more about improving likelihood of allocation success at"
            " http://aka.ms/allocation-guidance",
        )
    return None


def sku_not_available(cloud: Cloud, body: Body, size: catalogue.Size) -> None:
    """Refuses a machine in a region that a fault has emptied, of a size or a market that it has."""
    place = body["location"]
    spot = "spot" if body["properties"].get("priority") == "Spot" else None
    if cloud.faults.no_capacity(place, size.name, spot):
        raise ArmError(
            409,
            "SkuNotAvailable",
            f"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {size.name}' is"
            f" currently not available in location '{place}'. Please try another size or deploy to a different location"
            " or different zone. See https://aka.ms/azureskunotavailable for details.",
        )
