"""vCPU quotas: what the machines of each family may use in a region, what they use, and what is going to be added.

A machine that is replaced or resized gives back what it uses before it is made or started with the new size.

AWS counts by family and by purchase (on demand, spot), in Service Quotas; the codes are the same in every region.
Azure counts by family and in total; spot machines have a quota of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
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
    if not any(one.needs_room for one in place.wanted):
        return
    yield from _aws(place) if place.cloud == "aws" else _azure(place)


# -- AWS -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Running:
    """A machine that counts, and whether it `goes`: it is replaced or resized."""

    size: str
    spot: bool
    goes: bool


def _aws(place: Place) -> Iterable[Finding]:
    wanted = [one for one in place.wanted if one.needs_room]
    running = _running(place, {one.standing.id for one in wanted if one.standing is not None})
    vcpus = _vcpus(place, {one.args.size for one in wanted} | {one.size for one in running})
    on_demand = [one for one in wanted if not one.args.spot]
    for code, users in _by_code((one for one in wanted if one.args.spot), spot=True).items():
        finding, left = _aws_family(place, code, users, running, vcpus)
        finding, others = spot_judged(finding, users, {one.name: vcpus.get(one.args.size, 0) for one in users}, left)
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
    place: Place, code: str | None, users: list[Wanted], running: list[_Running], vcpus: Mapping[str, int]
) -> tuple[Finding, int]:
    """What one quota says to `users`, and how many vCPUs are left of it."""
    if code is None:
        names = ", ".join(one.name for one in users)
        return Finding("quota", f"the vCPU quota for {names} is not known here", "unknown"), 0
    need = sum(vcpus.get(one.args.size, 0) for one in users)
    counted = [one for one in running if aws_code(one.size, one.spot) == code]
    used = sum(vcpus.get(one.size, 0) for one in counted)
    gone = sum(vcpus.get(one.size, 0) for one in counted if one.goes)
    name, limit = aws_quota(place, "ec2", code)
    step = (
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
        f"--desired-value {used - gone + need} --region {place.region}; or another `size:`"
    )
    return compared(place, f"vCPUs of {name}", used, need, limit, step, gone), limit - used + gone


def _running(place: Place, going: Set[str]) -> list[_Running]:
    """Every machine that counts; `going`: the IDs of those that are replaced or resized."""
    with asking("ec2:DescribeInstances"):
        pages = place.aws("ec2").get_paginator("describe_instances")
        states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        return [
            _Running(
                instance["InstanceType"],
                instance.get("InstanceLifecycle") == "spot",
                goes=instance["InstanceId"] in going,
            )
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
    wanted = [one for one in place.wanted if one.needs_room]
    offers = skus(place)
    with asking("Microsoft.Compute/locations/usages/read"):
        usages = {_key(usage.name.value): usage for usage in place.azure.compute.usage.list(place.region)}
    known = {one.name: offers[one.args.size.lower()] for one in wanted if one.args.size.lower() in offers}
    cores = {name: _capability(sku, "vCPUs") for name, sku in known.items()}
    gone = _azure_gone(wanted, offers)
    wanted = [one for one in wanted if one.name in known]  # of the others `size` says that they are not offered
    on_demand = [one for one in wanted if not one.args.spot]
    if spots := [one for one in wanted if one.args.spot]:
        finding, left = _azure_quota(place, usages, SPOT_CORES, sum(cores[one.name] for one in spots), gone)
        finding, others = spot_judged(finding, spots, cores, left)
        on_demand += others
        yield finding
    needs: dict[str, int] = {}
    for one in on_demand:
        for name in ("cores", str(known[one.name].family)):
            needs[name] = needs.get(name, 0) + cores[one.name]
    for name, need in needs.items():
        yield _azure_quota(place, usages, name, need, gone)[0]


def _azure_gone(wanted: Iterable[Wanted], offers: Mapping[str, Any]) -> Counter[str]:
    """The cores that are given back, by quota: Azure counts each machine that exists, deallocated ones too."""
    gone: Counter[str] = Counter()
    for stands in (one.standing for one in wanted):
        if stands is not None and (sku := offers.get(stands.size.lower())) is not None:
            for name in (SPOT_CORES,) if stands.spot else ("cores", str(sku.family)):
                gone[_key(name)] += _capability(sku, "vCPUs")
    return gone


def _azure_quota(
    place: Place, usages: Mapping[str, Any], name: str, need: int, gone: Counter[str]
) -> tuple[Finding, int]:
    """What one quota says to so many cores more, and how many are left of it."""
    usage = usages.get(_key(name))
    if usage is None:
        return Finding("quota", f"Azure tells no quota {name} in {place.region}", "unknown"), 0
    back = gone[_key(name)]
    step = (
        f"ask for {usage.current_value - back + need} or more: portal, Quotas, Compute, {place.region}, "
        f"{usage.name.localized_value}; or another `size:`"
    )
    finding = compared(place, str(usage.name.localized_value), usage.current_value, need, usage.limit, step, back)
    return finding, usage.limit - usage.current_value + back


def _key(name: Any) -> str:
    """Azure writes family names with and without spaces and in different cases."""
    return re.sub(r"\s+", "", str(name)).lower()


def _capability(sku: Any, name: str) -> int:
    found = next((entry.value for entry in sku.capabilities or [] if entry.name == name), None)
    if found is None:
        raise NotAsked(f"Azure does not tell how many {name} {sku.name} has")
    return int(float(found))


# -- both ------------------------------------------------------------------------------------------------------
def compared(place: Place, what: str, used: int, need: int, limit: int, next_step: str, gone: int = 0) -> Finding:
    """One quota: `need` more on top of `used`, of `limit`; `gone` of the used ones are given back before."""
    given_back = f" ({gone} of them by what is replaced or resized)" if gone else ""
    told = f"{what}: {used} of {limit} used{given_back}, {need} needed"
    used -= gone
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


def spot_judged(
    finding: Finding, spots: Iterable[Wanted], vcpus: Mapping[str, int], left: int
) -> tuple[Finding, list[Wanted]]:
    """What a quota for spot machines means, and who is made on demand instead: nobody who ever stood. Pure."""
    if finding.level != "refused":
        return finding, []
    others = without_room(sorted(spots, key=lambda one: one.others), vcpus, left)
    if not all(one.others for one in others):
        return finding, []
    return on_demand_instead(finding, others), others


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
