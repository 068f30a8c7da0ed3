"""A deployment's whole life by the real command: up, up again, a change, down. The tests build on one another."""

from __future__ import annotations

import pytest
from e2e_world import SPEC, World, copy_of


@pytest.fixture(scope="module")
def up(world: World) -> World:
    """The federation, deployed."""
    world.write(SPEC)
    world.run("provision").ok()
    world.run("plan", "--out", "plan.json").ok()
    told = world.run("up", "--plan", "plan.json").ok()
    assert "registered: site-1" in told.out
    assert "emulated" in told.out.splitlines()[0]
    return world


def test_up_ends_when_the_site_is_registered(up: World) -> None:
    status = up.json("status").ok().last
    lines = {line["name"]: line for line in status["participants"]}
    assert lines["server"]["runtime"] == "running"
    assert lines["site-1"]["runtime"] == "registered"
    assert lines["site-1"]["deployed_by"] == "lead"
    assert lines["site-1"]["place"] == "eu-central-1"
    assert lines["server"]["usd_hour"] > 0


def test_the_clouds_hold_exactly_one_machine_each(up: World) -> None:
    machines = {machine["name"] for machine in up.sandbox.machines()}
    assert machines == {"server", "site-1"}
    assert len(up.sandbox.machines()) == 2


def test_up_again_changes_nothing_and_says_so(up: World) -> None:
    before = up.inventory()
    again = up.json("up", "--yes").ok()
    assert again.last["pushed"] == {"server": [], "site-1": []}
    assert again.last["nothing_changed"] is True
    assert up.inventory() == before
    assert "nothing changed" in up.run("up", "--yes").ok().out


def test_a_plan_without_changes_needs_no_answer(up: World) -> None:
    assert "nothing to change" in up.run("plan").ok().out


@pytest.mark.slow
def test_the_size_of_one_site_changes_only_that_site(up: World) -> None:
    machines = {machine["name"]: machine["id"] for machine in up.sandbox.machines()}
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["size"] = "m7i.xlarge"
    up.write(spec)
    stale = up.run("up", "--plan", "plan.json")
    assert stale.code == 13
    assert "has changed since the plan was made" in stale.err
    plan = {part["name"]: part for part in up.json("plan").ok().last["participants"]}
    assert plan["server"]["steps"] == []
    assert [(step["action"], step["name"]) for step in plan["site-1"]["steps"]] == [("update", "site-1-vm")]
    done = up.json("up", "--yes").ok().last
    assert done["changed"] == {"site-1": 1}
    assert done["registered"] == ["site-1"]
    after = {machine["name"]: machine for machine in up.sandbox.machines()}
    assert {name: machine["id"] for name, machine in after.items()} == machines
    assert after["site-1"]["size"] == "m7i.xlarge"
    again = up.json("up", "--yes").ok().last  # the engine knows what it has just said
    assert again["changed"] == {}
    run = sorted((up.fed / ".fedspan" / "logs").iterdir())[-1]
    assert "pulumi --non-interactive preview" not in (run / "site-1.log").read_text()


@pytest.mark.slow
def test_allow_opens_the_servers_port_and_takes_it_back(up: World) -> None:
    before = rules(up)
    assert "may reach" in up.run("allow", "site-1", "52.1.2.3/32").ok().out
    assert len(rules(up)) == len(before) + 1
    assert up.json("plan", "--refresh").ok().last["changes"] == 0
    up.run("allow", "site-1", "52.1.2.3/32", "--remove").ok()
    assert rules(up) == before
    refused = up.run("allow", "site-1", "0.0.0.0/0")
    assert refused.code == 3
    assert "opens the server's port to the world" in refused.err


def rules(world: World) -> list[str]:
    return [entry for entry in world.inventory() if "securityRules" in entry]


def test_down_leaves_nothing_in_either_cloud(up: World) -> None:
    told = up.run("down", "--yes").ok()
    assert "0 left (asked aws eu-central-1, azure westeurope)" in told.out
    assert up.inventory() == []
    assert up.sandbox.settle()
    assert up.sandbox.machines() == []
    assert up.kits.is_dir()
    assert list((up.fed / ".fedspan" / "ssh").iterdir()) == []
    assert "nothing is deployed" in up.run("down", "--yes").ok().out
