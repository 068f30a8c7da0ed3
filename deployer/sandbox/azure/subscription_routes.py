"""What lies above the resources: tenants, subscriptions, regions, providers and features, sizes, quotas, images."""

from __future__ import annotations

import re
from typing import Any

from deployer.sandbox.azure import catalogue, comp_capacity
from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.groups import show as show_group
from deployer.sandbox.azure.ids import GROUP_TYPE
from deployer.sandbox.azure.net_addresses import ADDRESS_QUOTA, ADDRESSES
from deployer.sandbox.azure.registry import KINDS
from deployer.sandbox.azure.state import PROVIDERS, Body, Cloud, Subscription
from deployer.sandbox.azure.web import Answer, Request

_TAG_FILTER = re.compile(r"tagName\s+eq\s+'([^']*)'(?:\s+and\s+tagValue\s+eq\s+'([^']*)')?\Z", re.IGNORECASE)
_TYPE_FILTER = re.compile(r"resourceType\s+eq\s+'([^']*)'\Z", re.IGNORECASE)
_LOCATION_FILTER = re.compile(r"location\s+eq\s+'([^']*)'\Z", re.IGNORECASE)


def show_subscription(one: Subscription) -> Body:
    return {
        "id": f"/subscriptions/{one.id}",
        "subscriptionId": one.id,
        "displayName": one.name,
        "tenantId": one.tenant_id,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    }


def tenants(cloud: Cloud, tenant: str) -> Answer:
    return Answer(200, {"value": [{"id": f"/tenants/{tenant}", "tenantId": tenant, "tenantCategory": "Home"}]})


def locations(one: Subscription) -> Answer:
    found = []
    for name, (display, geography, zonal) in catalogue.REGIONS.items():
        region: Body = {
            "id": f"/subscriptions/{one.id}/locations/{name}",
            "name": name,
            "type": "Region",
            "displayName": display,
            "regionalDisplayName": f"({geography}) {display}",
            "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "geographyGroup": geography},
        }
        if zonal:
            region["availabilityZoneMappings"] = [
                {"logicalZone": zone, "physicalZone": f"{name}-az{zone}"} for zone in catalogue.ZONES
            ]
        found.append(region)
    return Answer(200, {"value": found})


# -- providers and features ------------------------------------------------------------------------------------
def registration(cloud: Cloud, subscription: str, namespace: str) -> str:
    return cloud.registrations.get((subscription.lower(), namespace), "Registered")


def canonical_provider(text: str) -> str:
    found = next((name for name in PROVIDERS if name.lower() == text.lower()), None)
    if found is None:
        raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{text}' is invalid.")
    return found


def show_provider(cloud: Cloud, subscription: str, namespace: str) -> Body:
    types = [
        {
            "resourceType": name.split("/", 1)[1],
            "locations": [display for display, _, _ in catalogue.REGIONS.values()],
            "apiVersions": ["2025-05-01", "2025-04-01", "2024-11-01", "2024-05-01", "2024-03-01"],
            "capabilities": "CrossResourceGroupResourceMove, SupportsTags",
        }
        for name in (*KINDS, GROUP_TYPE)
        if name.startswith(namespace + "/")
    ]
    return {
        "id": f"/subscriptions/{subscription}/providers/{namespace}",
        "namespace": namespace,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": registration(cloud, subscription, namespace),
        "resourceTypes": types,
    }


def providers(cloud: Cloud, one: Subscription, rest: list[str], request: Request) -> Answer:
    """`/providers[/NAMESPACE[/register|unregister]]`."""
    if not rest:
        return Answer(200, {"value": [show_provider(cloud, one.id, name) for name in PROVIDERS]})
    namespace = canonical_provider(rest[0])
    if len(rest) == 2 and request.method == "POST" and rest[1].lower() in ("register", "unregister"):
        state = "Registered" if rest[1].lower() == "register" else "NotRegistered"
        cloud.registrations[(one.id.lower(), namespace)] = state
    return Answer(200, show_provider(cloud, one.id, namespace))


def features(cloud: Cloud, one: Subscription, rest: list[str], request: Request) -> Answer:
    """`Microsoft.Features/providers/NAMESPACE/features/NAME[/register|unregister]`."""
    if len(rest) < 4:
        raise ArmError(404, "InvalidResourceType", "The resource type could not be found.")
    namespace, name = rest[1], rest[3]
    key = (one.id.lower(), f"{namespace}/{name}".lower())
    if len(rest) == 5 and request.method == "POST":
        cloud.features[key] = "Registered" if rest[4].lower() == "register" else "NotRegistered"
    body = {
        "id": f"/subscriptions/{one.id}/providers/Microsoft.Features/providers/{namespace}/features/{name}",
        "name": f"{namespace}/{name}",
        "type": "Microsoft.Features/providers/features",
        "properties": {"state": cloud.features.get(key, "NotRegistered")},
    }
    return Answer(200, body)


# -- sizes, quotas, images -------------------------------------------------------------------------------------
def show_size(size: catalogue.Size) -> Body:
    return {
        "name": size.name,
        "numberOfCores": size.vcpus,
        "osDiskSizeInMB": 1047552,
        "resourceDiskSizeInMB": 0,
        "memoryInMB": int(size.memory_gib * 1024),
        "maxDataDiskCount": size.max_data_disks,
    }


def sizes() -> Answer:
    return Answer(200, {"value": [show_size(size) for size in catalogue.sizes().values()]})


def skus(cloud: Cloud, request: Request) -> Answer:
    """Resource SKUs of machines; restricted where a fault says that there is no capacity."""
    asked = _LOCATION_FILTER.match(request.query.get("$filter", "").strip())
    place = catalogue.region(asked.group(1)) if asked else None
    found = []
    for region in [place] if place else ([] if asked else list(catalogue.REGIONS)):
        for size in catalogue.sizes().values():
            found.append(_show_sku(cloud, size, region))
    return Answer(200, {"value": found})


def _show_sku(cloud: Cloud, size: catalogue.Size, region: str) -> Body:
    capabilities: dict[str, Any] = {
        "vCPUs": size.vcpus,
        "MemoryGB": size.memory_gib,
        "MaxDataDiskCount": size.max_data_disks,
        "PremiumIO": size.premium,
        "CpuArchitectureType": "Arm64" if size.arm64 else "x64",
        "HyperVGenerations": "V1,V2",
        "EncryptionAtHostSupported": True,
        "AcceleratedNetworkingEnabled": size.accelerated,
        "LowPriorityCapable": True,
    }
    if size.gpus:
        capabilities["GPUs"] = round(size.gpus, 3)
    empty = cloud.faults.no_capacity(region)
    zones = list(catalogue.zones(region))
    full = [zone for zone in zones if cloud.faults.no_capacity(f"{region}-{zone}")]
    restrictions: list[Body] = []
    if empty:
        restrictions.append(
            {
                "type": "Location",
                "values": [region],
                "restrictionInfo": {"locations": [region]},
                "reasonCode": "NotAvailableForSubscription",
            }
        )
    if full:
        restrictions.append(
            {
                "type": "Zone",
                "values": [region],
                "restrictionInfo": {"locations": [region], "zones": full},
                "reasonCode": "NotAvailableForSubscription",
            }
        )
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": zones, "zoneDetails": []}],
        "capabilities": [{"name": name, "value": str(value)} for name, value in capabilities.items()],
        "restrictions": restrictions,
    }


def compute_usages(cloud: Cloud, one: Subscription, place: str) -> Answer:
    families = sorted({size.family for size in catalogue.sizes().values()})
    rows = [("cores", "Total Regional vCPUs"), ("lowPriorityCores", "Total Regional Low-priority vCPUs")]
    rows += [(family, f"{family} vCPUs") for family in families]
    found = []
    for name, display in rows:
        default = (
            comp_capacity.CORES_IN_A_REGION
            if name in ("cores", "lowPriorityCores")
            else comp_capacity.CORES_OF_A_FAMILY
        )
        found.append(
            {
                "unit": "Count",
                "currentValue": comp_capacity.usage(cloud, one.id, place, name),
                "limit": cloud.quotas.get((one.id, place, name), default),
                "name": {"value": name, "localizedValue": display},
            }
        )
    return Answer(200, {"value": found})


def network_usages(cloud: Cloud, one: Subscription, place: str) -> Answer:
    rows = (
        ("PublicIPAddresses", ADDRESSES, ADDRESS_QUOTA),
        ("VirtualNetworks", "Microsoft.Network/virtualNetworks", 1000),
    )
    found = []
    for name, type_, limit in rows:
        used = [r for r in cloud.of_type(type_) if r.location == place and r.id.subscription == one.id]
        found.append(
            {
                "id": f"/subscriptions/{one.id}/providers/Microsoft.Network/locations/{place}/usages/{name}",
                "unit": "Count",
                "currentValue": len(used),
                "limit": cloud.quotas.get((one.id, place, name), limit),
                "name": {"value": name, "localizedValue": name},
            }
        )
    return Answer(200, {"value": found})


def images(one: Subscription, place: str, rest: list[str]) -> Answer:
    """`publishers/P/artifacttypes/vmimage/offers/O/skus/S/versions`: any prefix of it that ends in a collection."""
    wanted = [rest[i].lower() for i in (1, 5, 7) if len(rest) > i]
    if len(rest) not in (1, 5, 7, 9) and len(rest) % 2 == 0:
        raise ArmError(404, "NotFound", "Artifact: VMImage was not found.")
    level = len(wanted)
    matching = [key for key in catalogue.IMAGES if list(key[:level]) == wanted]
    if not matching:
        raise ArmError(404, "NotFound", "Artifact: VMImage was not found.")
    names = [catalogue.IMAGE_VERSION] if level == 3 else sorted({key[level] for key in matching})
    root = f"/subscriptions/{one.id}/providers/Microsoft.Compute/locations/{place}/{'/'.join(rest)}"
    return Answer(200, [{"id": f"{root}/{name}", "name": name, "location": place} for name in names])


# -- lists over everything -------------------------------------------------------------------------------------
def group_list(cloud: Cloud, one: Subscription, request: Request) -> Answer:
    wanted = _TAG_FILTER.match(request.query.get("$filter", "").strip())
    found = [
        show_group(group)
        for group in cloud.groups.values()
        if group.id.subscription.lower() == one.id.lower() and _tagged(group.tags, wanted)
    ]
    return Answer(200, {"value": found})


def _tagged(tags: dict[str, str], wanted: re.Match[str] | None) -> bool:
    if wanted is None:
        return True
    name, value = wanted.groups()
    mine = {key.lower(): text for key, text in tags.items()}
    return name.lower() in mine and (value is None or mine[name.lower()] == value)


def resource_list(cloud: Cloud, one: Subscription, group: str | None, request: Request) -> Answer:
    """Generic resources: what is tracked, of a subscription or a group, by tag or by type."""
    text = request.query.get("$filter", "").strip()
    by_tag, by_type = _TAG_FILTER.match(text), _TYPE_FILTER.match(text)
    if text and not (by_tag or by_type):
        raise ArmError(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified in the query string.")
    found = []
    for record in cloud.records.values():
        kind, place = KINDS[record.id.type], record.id
        if not kind.tracked or place.subscription.lower() != one.id.lower():
            continue
        if group is not None and place.group.lower() != group.lower():
            continue
        if not _tagged(record.tags, by_tag) or (by_type and by_type.group(1).lower() != place.type.lower()):
            continue
        shown: Body = {"id": str(place), "name": place.name, "type": place.type, "location": record.location}
        found.append({**shown, **{key: record.body[key] for key in ("tags", "sku", "zones") if record.body.get(key)}})
    return Answer(200, {"value": found})
