"""Where a cloud has no room, the next place is taken; what no other place mends stops and says what to ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e_world import LEAD, World, copy_of

AWS: dict[str, Any] = {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": AWS},
    "admins": {LEAD: {"role": "lead"}},
}


@pytest.fixture(autouse=True)
def tidy(world: World) -> Iterator[None]:
    yield
    world.faults()
    if world.inventory():
        world.run("down", "--yes")


def spec_of(**site: Any) -> dict[str, Any]:
    return copy_of(SPEC, sites={"site-1": {**AWS, **site}})


def machines(world: World) -> list[dict[str, Any]]:
    assert world.sandbox.settle()
    return world.sandbox.machines()


def site(world: World) -> dict[str, Any]:
    lines = world.json("status").ok().last["participants"]
    return next(line for line in lines if line["name"] == "site-1")


@pytest.mark.slow
def test_a_full_zone_moves_a_site_to_the_next_one_with_the_same_address(world: World) -> None:
    world.write(spec_of())
    world.faults(no_capacity=["eu-central-1a"])
    told = world.run("up", "--yes").ok().out
    assert "no room for m7i.large in eu-central-1; trying m7i.large in eu-central-1b" in told
    assert [machine["zone"] for machine in machines(world)] == ["eu-central-1b"]
    subnets = [entry for entry in world.inventory() if "subnet" in entry]
    assert len(subnets) == 1, "the first zone's subnet is gone"
    assert len([entry for entry in world.inventory() if "elastic-ip" in entry]) == 1
    world.faults()
    assert world.json("plan", "--refresh").ok().last["changes"] == 0, "the place that was found is kept"
    assert "0 left" in world.run("down", "--yes").ok().out


@pytest.mark.slow
def test_sizes_are_tried_in_their_order_and_spot_falls_back_to_on_demand(world: World) -> None:
    world.write(spec_of(size=None, sizes=["m7i.xlarge", "m7i.large"], zones=["eu-central-1a"], spot=True))
    world.faults(no_capacity=["spot", "m7i.xlarge"])
    told = world.run("up", "--yes").ok().out
    assert "trying on demand m7i.large in eu-central-1a" in told
    (machine,) = machines(world)
    assert (machine["size"], machine["zone"]) == ("m7i.large", "eu-central-1a")
    world.faults()
    assert world.json("plan", "--refresh").ok().last["changes"] == 0


@pytest.mark.slow
def test_a_zone_of_azure_that_is_full_moves_a_site_to_the_next_named_one(world: World) -> None:
    place = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5", "zones": ["1", "2"]}
    world.write(copy_of(SPEC, sites={"site-1": place}))
    world.faults(no_capacity=["westeurope-1"])
    told = world.run("up", "--yes").ok().out
    assert "trying Standard_D2s_v5 in westeurope zone 2" in told
    assert [machine["zone"] for machine in machines(world)] == ["2"]
    world.faults()
    assert world.json("plan", "--refresh").ok().last["changes"] == 0


@pytest.mark.slow
def test_another_region_only_when_allowed_and_the_servers_rules_follow(world: World) -> None:
    server = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"}
    world.write(copy_of(SPEC, server=server, sites={"site-1": {**AWS, "fallback_regions": ["eu-west-1"]}}))
    world.faults(no_capacity=["eu-central-1"])
    refused = world.run("up", "--yes")
    assert refused.code == 8
    assert "--allow-fallback tries eu-west-1, with a new address" in refused.err
    told = world.run("up", "--yes", "--allow-fallback").ok().out
    assert "registered: site-1" in told, "the server lets the new address in"
    assert "lets in the new address of site-1" in told
    assert site(world)["place"].startswith("eu-west-1")
    assert not any("eu-central-1" in item.region for item in world.sandbox.inventory())
    world.faults()
    assert world.json("plan", "--refresh").ok().last["changes"] == 0, (
        "the region that was found is kept, without the option too"
    )


@pytest.mark.slow
def test_the_address_of_a_region_that_was_left_is_let_in_no_more_also_when_the_next_one_fails(world: World) -> None:
    server = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"}
    world.write(copy_of(SPEC, server=server, sites={"site-1": {**AWS, "fallback_regions": ["eu-west-1"]}}))
    world.faults(no_capacity=["eu-central-1", "eu-west-1"])
    failed = world.run("up", "--yes", "--allow-fallback")
    assert failed.code == 8
    assert "trying m7i.large in eu-west-1" in failed.out
    assert "and the one before no more" in failed.out
    (address,) = [item for item in world.sandbox.inventory() if item.kind == "ec2:elastic-ip"]
    assert address.region == "eu-west-1"
    parts = {part["name"]: part for part in world.json("plan").ok().last["participants"]}
    assert parts["server"]["steps"] == [], "the server lets in the new address only"
    assert len([opening for opening in parts["server"]["open"] if opening["who"] == "site-1"]) == 1


@pytest.mark.slow
def test_with_a_cap_nobody_is_moved_to_a_dearer_size(world: World) -> None:
    world.write(spec_of(size=None, sizes=["m7i.large", "m7i.xlarge"], zones=["eu-central-1a"]))
    world.faults(no_capacity=["m7i.large"])
    result = world.run("up", "--yes", "--max-hourly-cost", "50")
    assert result.code == 8
    assert "m7i.xlarge" not in result.err


def test_a_used_up_quota_stops_and_says_what_to_ask_for(world: World) -> None:
    world.write(spec_of())
    world.faults(fail={"vm": "api error VcpuLimitExceeded: your current vCPU limit of 8 allows"})
    result = world.run("up", "--yes")
    assert result.code == 8
    assert "trying" not in result.out
    assert "ask for more vCPUs for this family of sizes (Service Quotas, Amazon EC2), now 8" in result.err


@pytest.mark.slow
def test_a_missing_right_stops_and_names_it(world: World) -> None:
    world.write(spec_of())
    words = "api error UnauthorizedOperation: User: arn:x is not authorized to perform: ec2:RunInstances on resource: y"
    world.faults(fail={"vm": words})
    result = world.run("up", "--yes")
    assert result.code == 5
    assert "ask for the right ec2:RunInstances" in result.err


@pytest.mark.slow
def test_a_machine_that_the_cloud_never_finishes_is_given_up_and_tried_elsewhere(world: World) -> None:
    world.write(spec_of(zones=["eu-central-1a", "eu-central-1b"]))
    world.faults(delays={"create ec2:instance": 3600.0})
    result = world.run("up", "--yes", environment={"FEDSPAN_MACHINE_DEADLINE": "4"})
    assert result.code == 8
    assert "was given up" in result.err
    assert "the cloud has not made it within 4 s" in result.err
    assert "tried m7i.large in eu-central-1a, m7i.large in eu-central-1b" in result.err
    world.faults()
    assert "0 left" in world.run("down", "--yes").ok().out
    assert world.inventory() == []
