"""vCPU quotas: what the machines of each family may use in a region, what they use, and what is going to be added.

AWS counts by family and by purchase (on demand, spot), in Service Quotas; the codes are the same in every region.
Azure counts by family and in total; spot machines have a quota of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from deployer.errors import CapacityError
from deployer.preflight.model import Finding
from deployer.preflight.place import NotAsked, Place, Wanted, asking
from deployer.preflight.size import skus

# first letters of an instance type -> on demand, spot. The first entry is for all others ("Standard").
AWS_CODES: dict[str, tuple[str, str]] = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "gr": ("L-DB2E81BA", "L-3819A6DF"),
    "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
}
_STANDARD = frozenset("acdhimrtz")
SPOT_CORES = "lowPriorityCores"


def aws_code(size: str, spot: bool) -> str | None:
    """The quota that a machine of this type counts against; None for a family whose code is not known here."""
    match = re.match(r"[a-z]+", size)
    letters = match.group() if match else ""
    if spot and letters == "p" and not re.match(r"p[234]", size):
        return None  # newer P families have spot quotas of their own
    family = "standard" if letters[:1] in _STANDARD and letters not in ("dl", "hpc", "inf", "trn", "mac") else letters
    codes = AWS_CODES.get(family)
    return codes[1 if spot else 0] if codes else None


def check(place: Place) -> Iterable[Finding]:
    """What is going to be made, against what is left."""
    if not any(one.makes_machine for one in place.wanted):
        return
    yield from _aws(place) if place.cloud == "aws" else _azure(place)


# -- AWS -------------------------------------------------------------------------------------------------------
def _aws(place: Place) -> Iterable[Finding]:
    wanted = [one for one in place.wanted if one.makes_machine]
    running = _running(place)
    vcpus = _vcpus(place, {one.args.size for one in wanted} | {size for size, _ in running})
    on_demand = [one for one in wanted if not one.args.spot]
    for code, users in _by_code((one for one in wanted if one.args.spot), spot=True).items():
        finding, left = _aws_family(place, code, users, running, vcpus)
        if finding.level == "refused":
            others = without_room(users, {one.name: vcpus.get(one.args.size, 0) for one in users}, left)
            finding = on_demand_instead(finding, others)
            on_demand += others
        yield finding
    for code, users in _by_code(on_demand, spot=False).items():
        yield _aws_family(place, code, users, running, vcpus)[0]


def _by_code(wanted: Iterable[Wanted], *, spot: bool) -> dict[str | None, list[Wanted]]:
    """Who counts against which quota."""
    found: dict[str | None, list[Wanted]] = {}
    for one in wanted:
        found.setdefault(aws_code(one.args.size, spot), []).append(one)
    return found


def _aws_family(
    place: Place, code: str | None, users: list[Wanted], running: list[tuple[str, bool]], vcpus: Mapping[str, int]
) -> tuple[Finding, int]:
    """What one quota says to `users`, and how many vCPUs are left of it."""
    if code is None:
        names = ", ".join(one.name for one in users)
        return Finding("quota", f"the vCPU quota for {names} is not known here", "unknown"), 0
    need = sum(vcpus.get(one.args.size, 0) for one in users)
    used = sum(vcpus.get(size, 0) for size, spot in running if aws_code(size, spot) == code)
    name, limit = aws_quota(place, "ec2", code)
    step = (
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
        f"--desired-value {used + need} --region {place.region}; or another `size:`"
    )
    return compared(place, f"vCPUs of {name}", used, need, limit, step), limit - used


def _running(place: Place) -> list[tuple[str, bool]]:
    """Type and whether it is spot, of every machine that counts."""
    with asking("ec2:DescribeInstances"):
        pages = place.aws("ec2").get_paginator("describe_instances")
        states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        return [
            (instance["InstanceType"], instance.get("InstanceLifecycle") == "spot")
            for page in pages.paginate(Filters=states)
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]


def _vcpus(place: Place, sizes: set[str]) -> dict[str, int]:
    with asking("ec2:DescribeInstanceTypes"):
        pages = place.aws("ec2").get_paginator("describe_instance_types")
        filters = [{"Name": "instance-type", "Values": sorted(sizes)}]
        return {
            entry["InstanceType"]: int(entry["VCpuInfo"]["DefaultVCpus"])
            for page in pages.paginate(Filters=filters)
            for entry in page["InstanceTypes"]
        }


def aws_quota(place: Place, service: str, code: str) -> tuple[str, int]:
    """A quota's name and its value: the account's own, or AWS's default where the account never changed it."""
    quotas = place.aws("service-quotas")
    with asking("servicequotas:GetServiceQuota"):
        try:
            found = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]
        except quotas.exceptions.NoSuchResourceException:
            found = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]
    return found["QuotaName"], int(found["Value"])


# -- Azure -----------------------------------------------------------------------------------------------------
def _azure(place: Place) -> Iterable[Finding]:
    wanted = [one for one in place.wanted if one.makes_machine]
    offers = skus(place)
    with asking("Microsoft.Compute/locations/usages/read"):
        usages = {_key(usage.name.value): usage for usage in place.azure.compute.usage.list(place.region)}
    known = {one.name: offers[one.args.size.lower()] for one in wanted if one.args.size.lower() in offers}
    cores = {name: _capability(sku, "vCPUs") for name, sku in known.items()}
    wanted = [one for one in wanted if one.name in known]  # of the others `size` says that they are not offered
    on_demand = [one for one in wanted if not one.args.spot]
    if spots := [one for one in wanted if one.args.spot]:
        finding, left = _azure_quota(place, usages, SPOT_CORES, sum(cores[one.name] for one in spots))
        if finding.level == "refused":
            others = without_room(spots, cores, left)
            finding = on_demand_instead(finding, others)
            on_demand += others
        yield finding
    needs: dict[str, int] = {}
    for one in on_demand:
        for name in ("cores", str(known[one.name].family)):
            needs[name] = needs.get(name, 0) + cores[one.name]
    for name, need in needs.items():
        yield _azure_quota(place, usages, name, need)[0]


def _azure_quota(place: Place, usages: Mapping[str, Any], name: str, need: int) -> tuple[Finding, int]:
    """What one quota says to so many cores more, and how many are left of it."""
    usage = usages.get(_key(name))
    if usage is None:
        return Finding("quota", f"Azure tells no quota {name} in {place.region}", "unknown"), 0
    step = (
        f"ask for {usage.current_value + need} or more: portal, Quotas, Compute, {place.region}, "
        f"{usage.name.localized_value}; or another `size:`"
    )
    finding = compared(place, str(usage.name.localized_value), usage.current_value, need, usage.limit, step)
    return finding, usage.limit - usage.current_value


def _key(name: Any) -> str:
    """Azure writes family names with and without spaces and in different cases."""
    return re.sub(r"\s+", "", str(name)).lower()


def _capability(sku: Any, name: str) -> int:
    found = next((entry.value for entry in sku.capabilities or [] if entry.name == name), None)
    if found is None:
        raise NotAsked(f"Azure does not tell how many {name} {sku.name} has")
    return int(float(found))


# -- both ------------------------------------------------------------------------------------------------------
def compared(place: Place, what: str, used: int, need: int, limit: int, next_step: str) -> Finding:
    """One quota: `need` more on top of `used`, of `limit`."""
    told = f"{what}: {used} of {limit} used, {need} needed"
    if used + need <= limit:
        return Finding("quota", told, why=place.region)
    return Finding(
        "quota",
        told,
        "refused",
        why=f"{place.title} has {max(limit - used, 0)} left",
        next_step=next_step,
        error=CapacityError,
    )


def without_room(spots: Iterable[Wanted], vcpus: Mapping[str, int], left: int) -> list[Wanted]:
    """The spot machines that what is left of their quota is not enough for, the first ones first. Pure."""
    others = []
    for one in spots:
        if vcpus[one.name] <= left:
            left -= vcpus[one.name]
        else:
            others.append(one)
    return others


def on_demand_instead(finding: Finding, others: Iterable[Wanted]) -> Finding:
    """A used-up quota for spot machines stops nothing: `up` makes those on demand. Pure."""
    names = ", ".join(one.name for one in others)
    return replace(finding, level="warning", why=f"{finding.why}; on demand instead: {names}")
