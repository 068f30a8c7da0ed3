"""Candidates come by zone, size, market and region; a machine that stood is not moved. Pure, by tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.ledger_rows import Event, Row
from deployer.member import Member
from deployer.placement import ON_DEMAND, Place, candidates, kept, moved, place_of, stood

SITE = Member("site-1", "site", "aws", Path("kits/site-1"), region="eu-central-1", size="m7i.large")
asked: list[tuple[str, str]] = []


def zones_of(region: str, size: str) -> Sequence[str]:
    asked.append((region, size))
    return [f"{region}{letter}" for letter in "abc"]


def titles(member: Member, *, allow_fallback: bool = False) -> list[str]:
    found = candidates(member, zones_of, allow_fallback=allow_fallback)
    return [place.title(tell_market=member.spot) for place in found]


def test_without_a_zone_the_cloud_chooses_first_and_then_each_zone_is_tried() -> None:
    assert titles(SITE) == [
        "m7i.large in eu-central-1",
        "m7i.large in eu-central-1a",
        "m7i.large in eu-central-1b",
        "m7i.large in eu-central-1c",
    ]


def test_a_cloud_is_asked_for_its_zones_only_when_their_turn_comes() -> None:
    asked.clear()
    found = candidates(SITE, zones_of)
    assert next(found).zone is None
    assert asked == []
    assert next(found).zone == "eu-central-1a"
    assert asked == [("eu-central-1", "m7i.large")]


def test_named_zones_are_the_only_ones_and_come_before_the_next_size() -> None:
    site = replace(
        SITE, zone="eu-central-1b", zones=("eu-central-1b", "eu-central-1c"), sizes=("m7i.large", "m6i.large")
    )
    assert titles(site) == [
        "m7i.large in eu-central-1b",
        "m7i.large in eu-central-1c",
        "m6i.large in eu-central-1b",
        "m6i.large in eu-central-1c",
    ]


def test_spot_comes_before_on_demand() -> None:
    site = replace(SITE, spot=True, zone="eu-central-1a")
    assert titles(site) == ["spot m7i.large in eu-central-1a", "on demand m7i.large in eu-central-1a"]


def test_another_region_is_a_candidate_only_when_allowed_and_chooses_its_own_zone() -> None:
    site = replace(SITE, zone="eu-central-1a", fallback_regions=("eu-west-1",))
    assert titles(site) == ["m7i.large in eu-central-1a"]
    assert titles(site, allow_fallback=True)[:2] == ["m7i.large in eu-central-1a", "m7i.large in eu-west-1"]


def test_a_moved_member_has_the_same_candidates_as_before() -> None:
    site = replace(SITE, fallback_regions=("eu-west-1",), sizes=("m7i.large", "m6i.large"), spot=True)
    everywhere = list(candidates(site, zones_of, allow_fallback=True))
    for place in everywhere:
        there = moved(site, place)
        assert place_of(there) == place
        assert list(candidates(replace(there, spot=True), zones_of, allow_fallback=True)) == everywhere


def row(**fields: object) -> Row:
    return Row(**{"name": "site-1", "role": "site", "target": "aws", "phase": "machine", **fields})  # type: ignore[arg-type]  # a test's own


@pytest.mark.parametrize(
    ("spec", "ledger", "place"),
    [
        pytest.param(SITE, None, Place("eu-central-1", None, "m7i.large", False), id="nothing there"),
        pytest.param(
            SITE,
            row(region="eu-central-1", zone="eu-central-1b", size="m7i.large"),
            Place("eu-central-1", "eu-central-1b", "m7i.large", False),
            id="zone that had room",
        ),
        pytest.param(
            SITE,
            row(region="eu-central-1", zone="eu-central-1b", size="m7i.large", phase="down"),
            Place("eu-central-1", None, "m7i.large", False),
            id="taken down since",
        ),
        pytest.param(
            replace(SITE, zone="eu-central-1a"),
            row(region="eu-central-1", zone="eu-central-1b", size="m7i.large"),
            Place("eu-central-1", "eu-central-1a", "m7i.large", False),
            id="the spec names another zone now",
        ),
        pytest.param(
            replace(SITE, sizes=("m7i.large", "m6i.large")),
            row(region="eu-central-1", size="m6i.large"),
            Place("eu-central-1", None, "m6i.large", False),
            id="second size",
        ),
        pytest.param(
            SITE,
            row(region="eu-central-1", size="m6i.large"),
            Place("eu-central-1", None, "m7i.large", False),
            id="a size that the spec names no more",
        ),
        pytest.param(
            replace(SITE, spot=True),
            row(region="eu-central-1", size="m7i.large", outputs={"market": ON_DEMAND}),
            Place("eu-central-1", None, "m7i.large", False),
            id="fell back to on demand",
        ),
        pytest.param(
            replace(SITE, spot=True),
            row(region="eu-central-1", size="m7i.large", outputs={"market": ""}),
            Place("eu-central-1", None, "m7i.large", True),
            id="the spec wants spot since",
        ),
        pytest.param(
            replace(SITE, fallback_regions=("eu-west-1",)),
            row(region="eu-west-1", size="m7i.large"),
            Place("eu-west-1", None, "m7i.large", False),
            id="fell back to another region",
        ),
        pytest.param(
            SITE,
            row(region="eu-west-1", size="m7i.large"),
            Place("eu-central-1", None, "m7i.large", False),
            id="a region that the spec names no more",
        ),
    ],
)
def test_the_next_up_keeps_the_place_that_an_earlier_one_found(spec: Member, ledger: Row | None, place: Place) -> None:
    assert place_of(kept(spec, ledger)) == place


def test_on_demand_is_remembered_as_a_choice_only_where_the_spec_wants_spot() -> None:
    on_demand = Place("eu-central-1", None, "m7i.large", False)
    assert not moved(SITE, on_demand).market_chosen
    fallen = moved(replace(SITE, spot=True), on_demand)
    assert fallen.market_chosen
    assert moved(fallen, replace(on_demand, zone="eu-central-1b")).market_chosen
    assert not moved(fallen, replace(on_demand, spot=True)).market_chosen


def events(*phases: str) -> list[Event]:
    return [Event(float(at), "site-1", phase, "", "") for at, phase in enumerate(phases)]


@pytest.mark.parametrize(
    ("phases", "answer"),
    [
        ((), False),
        (("allocating", "address", "failed"), False),
        (("allocating", "address", "machine", "started", "failed"), True),
        (("machine", "started", "down", "allocating", "address"), False),
        (("machine", "moved", "create"), True),
    ],
)
def test_a_machine_that_stood_is_known_from_the_ledger(phases: tuple[str, ...], answer: bool) -> None:
    assert stood(events(*phases)) is answer
