"""vCPU quotas: what the machines of each family may use in a region, what they use, and what is going to be added.

AWS counts by family and by purchase (on demand, spot), in Service Quotas; the codes are the same in every region.
Azure counts by family and in total; spot machines have a quota of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from deployer.errors import CapacityError
from deployer.preflight.model import Finding
from deployer.preflight.place import NotAsked, Place, asking

# first letters of an instance type -> on demand, spot. The first entry is for all others ("Standard").
AWS_CODES: dict[str, tuple[str, str]] = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "gr": ("L-DB2E81BA", "L-3819A6DF"),
    "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
}
_STANDARD = frozenset("acdhimrtz")


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
    needs: dict[str | None, int] = {}
    for one in wanted:
        code = aws_code(one.args.size, one.args.spot)
        needs[code] = needs.get(code, 0) + vcpus.get(one.args.size, 0)
    for code, need in needs.items():
        if code is None:
            names = ", ".join(one.name for one in wanted if aws_code(one.args.size, one.args.spot) is None)
            yield Finding("quota", f"the vCPU quota for {names} is not known here", "unknown")
            continue
        used = sum(vcpus.get(size, 0) for size, spot in running if aws_code(size, spot) == code)
        quota = aws_quota(place, "ec2", code)
        step = (
            f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
            f"--desired-value {used + need} --region {place.region}; or another `size:`"
        )
        yield compared(place, f"vCPUs of {quota[0]}", used, need, quota[1], step)


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
    with asking("Microsoft.Compute/skus/read"):
        skus = {
            str(sku.name).lower(): sku
            for sku in place.azure.compute.resource_skus.list(filter=f"location eq '{place.region}'")
            if str(sku.resource_type).lower() == "virtualmachines"
        }
    needs: dict[str, int] = {}
    for one in wanted:
        sku = skus.get(one.args.size.lower())
        if sku is None:
            continue  # `size` says that it is not offered
        cores = _capability(sku, "vCPUs")
        for name in ("lowPriorityCores",) if one.args.spot else ("cores", str(sku.family)):
            needs[name] = needs.get(name, 0) + cores
    with asking("Microsoft.Compute/locations/usages/read"):
        usages = {_key(usage.name.value): usage for usage in place.azure.compute.usage.list(place.region)}
    for name, need in needs.items():
        usage = usages.get(_key(name))
        if usage is None:
            yield Finding("quota", f"Azure tells no quota {name} in {place.region}", "unknown")
            continue
        step = (
            f"ask for {usage.current_value + need} or more: portal, Quotas, Compute, {place.region}, "
            f"{usage.name.localized_value}; or another `size:`"
        )
        yield compared(place, str(usage.name.localized_value), usage.current_value, need, usage.limit, step)


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
