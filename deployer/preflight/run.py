"""All checks at once, each place's and subject's in a thread of its own; what can't be asked stops nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from deployer.deployment import Deployment
from deployer.errors import FedspanError
from deployer.member import Member
from deployer.placement import stood
from deployer.preflight import (
    azure_provider,
    clock,
    counts,
    credentials,
    image,
    local,
    names,
    quota,
    region,
    roles,
    rules,
    size,
)
from deployer.preflight.model import Finding, Level
from deployer.preflight.place import NotAsked, Place, Wanted
from deployer.preflight.standing import Standing
from stacks.args import ParticipantArgs

SUBJECTS: Mapping[str, Callable[[Place], Iterable[Finding]]] = {
    "credentials": credentials.check,
    "region": region.check,
    "provider": azure_provider.check,
    "image": image.check,
    "size": size.check,
    "quota": quota.check,
    "counts": counts.check,
    "rules": rules.check,
    "roles": roles.check,
    "clock": clock.check,
}
AT_ONCE = 16
_ORDER: dict[Level, int] = {"refused": 0, "warning": 1, "unknown": 2, "ok": 3}


@dataclass(frozen=True)
class Candidate:
    """A participant with its identity, what is going to be created for it, by Pulumi type, and in whose place."""

    member: Member
    args: ParticipantArgs
    access: Any
    creates: Counter[str]
    standing: Standing | None = None


@dataclass(frozen=True)
class Report:
    """What was found, the worst first; `zones` are candidates for participants that name no zone."""

    findings: tuple[Finding, ...]
    zones: Mapping[str, tuple[str, ...]]


def has_others(member: Member, allow_fallback: bool) -> bool:
    """Whether `up` has another place to try where the wanted one has no room."""
    regions = len(member.fallback_regions) if allow_fallback else 0
    return len(member.sizes) > 1 or len(member.zones) > 1 or member.spot or regions > 0


def _moves(deployment: Deployment, member: Member, allow_fallback: bool) -> bool:
    """Whether `up` would try another place: never for a machine that ever stood, whose volume may hold data."""
    return has_others(member, allow_fallback) and not stood(deployment.ledger.events(member.name))


def places(deployment: Deployment, candidates: Iterable[Candidate], allow_fallback: bool = False) -> list[Place]:
    """Participants by identity and region: quotas and counts are a region's, for all of them together."""
    grouped: dict[tuple[str, str, str, str], list[Candidate]] = {}
    for one in candidates:
        cloud, access = one.member.cloud or "", one.access
        owner = (access.account_id or "") if cloud == "aws" else access.subscription_id
        profile = (access.profile or "") if cloud == "aws" else ""
        grouped.setdefault((cloud, owner, profile, one.args.region), []).append(one)
    found = []
    for (_, owner, _, where), users in grouped.items():
        first = users[0]
        assert first.member.cloud is not None, "only participants in a cloud are candidates"
        clients = deployment.realm.clients(first.member.cloud, first.member, first.access)
        wanted = tuple(
            Wanted(one.member, one.args, one.creates, _moves(deployment, one.member, allow_fallback), one.standing)
            for one in users
        )
        found.append(Place(first.member.cloud, where, owner, first.access, clients, wanted))
    return found


def check(deployment: Deployment, candidates: Iterable[Candidate], allow_fallback: bool = False) -> Report:
    """Every check of every place, and those that need no cloud. Raises nothing for what a check finds."""
    candidates = list(candidates)
    found = places(deployment, candidates, allow_fallback)
    zones: dict[str, tuple[str, ...]] = {}
    jobs: list[tuple[str, Callable[[], Iterable[Finding]]]] = []
    if found:
        jobs.append(("address", lambda: local.check_address(deployment)))
    for place in found:
        jobs += [(subject, _bound(work, place)) for subject, work in SUBJECTS.items()]
        jobs.append(("names", _bound(lambda one: names.check(one, deployment.realm), place)))
        jobs.append(("size", _bound(lambda one: _zones(one, zones), place)))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="preflight") as pool:
        results = [pool.submit(_collect, subject, work) for subject, work in jobs]
        findings = [finding for result in results for finding in result.result()]
    return Report(tuple(sorted(findings, key=lambda one: _ORDER[one.level])), zones)


def _bound(work: Callable[[Place], Iterable[Finding]], place: Place) -> Callable[[], Iterable[Finding]]:
    return lambda: work(place)


def _zones(place: Place, into: dict[str, tuple[str, ...]]) -> Iterable[Finding]:
    with contextlib.suppress(NotAsked):  # the check of sizes says so
        into.update(size.zones_of(place))
    return ()


def _collect(subject: str, work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check found until it ended, was not answered, or went wrong itself."""
    found: list[Finding] = []
    try:
        for finding in work():
            found.append(finding)
    except NotAsked as error:
        step = f"give the right {error.right} (fedspan policy prints all of them)" if error.right else ""
        found.append(Finding(subject, "not checked", "unknown", why=str(error), next_step=step))
    except FedspanError as error:
        found.append(Finding(subject, "not checked", "unknown", why=error.what, next_step=error.next_step or ""))
    except Exception as error:  # a fault of a check must not stand in the way of what it checks
        why = f"the check itself failed, {type(error).__name__}: {error}"
        found.append(Finding(subject, "not checked", "unknown", why=why))
    return found
