"""A site's machine ends itself, and its bill, while nobody looks; a reboot in between changes nothing."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of

from deployer.idle_units import SERVICE_PATH, TIMER_PATH, timer_text
from deployer.realm_sandbox import aws_session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def up(world: World) -> World:
    """A server and a site, registered, without an end."""
    write(world, self_deallocate=False)
    world.run("up", "--yes").ok()
    return world


def write(world: World, *, self_deallocate: bool, **more: str) -> None:
    """The spec; its site in Azure ends its own bill, or not."""
    spec = copy_of(SPEC)
    spec["sites"]["site-2"] = {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5", **more}
    spec["sites"]["site-2"] |= {"self_deallocate": True} if self_deallocate else {}
    world.write(spec)


def things(world: World, name: str) -> dict[str, str]:
    """What the clouds hold of a site: the ID by its kind's last word."""
    return {item.kind.split("/")[-1]: item.id for item in world.sandbox.inventory() if name in item.id}


@functools.cache
def _client(url: str, *identity: tuple[str, str]) -> Any:
    return aws_session(dict(identity), "eu-central-1").client("ec2", endpoint_url=url)


def ec2(world: World) -> Any:
    return _client(world.sandbox.aws_endpoints()["ec2"], *world.sandbox.aws_environment(None).items())


def instance(world: World) -> dict[str, Any]:
    found: dict[str, Any] = ec2(world).describe_instances()["Reservations"][-1]["Instances"][0]
    return found


def site(world: World, *words: str, name: str = "site-1") -> dict[str, Any]:
    lines = world.json("status", *words).ok().last["participants"]
    return next(line for line in lines if line["name"] == name)


def wait(reached: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.5)


def test_the_server_has_no_end(up: World) -> None:
    refused = up.run("up", "server", "--ttl", "8h", "--yes")
    assert refused.code == 2
    assert "--ttl is for sites in a cloud" in refused.err


def test_extend_gives_an_end_to_stack_and_machine_and_never_takes_it_away(up: World) -> None:
    told = up.run("extend", "site-1", "8h").ok().out
    assert "site-1: ends itself at 20" in told
    shown = site(up)["expires"]
    assert shown in told
    known = instance(up)
    attribute = ec2(up).describe_instance_attribute(
        InstanceId=known["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert attribute["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    assert {"Key": "fedspan:expires-at", "Value": shown} in known["Tags"]
    assert "ends itself in 8 h" in up.run("status").ok().out
    assert up.json("plan").ok().last["changes"] == 0
    up.run("extend", "site-1", "never").ok()
    assert site(up)["expires"] is None
    assert up.json("up", "--yes").ok().last["nothing_changed"] is True


def test_who_may_give_no_role_is_told_before_anything_is_made(up: World) -> None:
    subscription = up.sandbox.azure_environment()["ARM_SUBSCRIPTION_ID"]
    write(up, self_deallocate=True)
    contributor = {
        "Actions": ["*"],
        "NotActions": [f"Microsoft.Authorization/*/{verb}" for verb in ("Write", "Delete")],
    }
    up.sandbox.enforce_role(subscription, contributor)
    refused = up.run("up", "site-2", "--yes")
    assert refused.code == 18
    assert "site-2 asks for self_deallocate" in refused.err
    assert "roleAssignments" not in things(up, "site-2")
    # the role that fedspan prints for this spec is enough, from here to the end
    up.run("policy", "azure", "--out", "role.json").ok()
    up.sandbox.enforce_role(subscription, json.loads((up.fed / "role.json").read_text()))


def test_a_machine_that_stands_gets_its_identity_in_place(up: World) -> None:
    (part,) = (part for part in up.json("plan").ok().last["participants"] if part["name"] == "site-2")
    assert (part["create"], part["update"], part["replace"], part["delete"]) == (1, 1, 0, 0)
    assert part["self_deallocate"] is True
    before = things(up, "site-2")["virtualMachines"]
    up.run("up", "site-2", "--yes").ok()
    after = things(up, "site-2")
    assert after["virtualMachines"] == before
    assert after["roleAssignments"].startswith(f"{before}/providers/Microsoft.Authorization/")
    assert site(up, "--refresh", name="site-2")["drift"] == []
    assert up.json("plan").ok().last["changes"] == 0


def test_a_machine_ends_itself_also_after_a_reboot(up: World) -> None:
    before = site(up)
    took = up.run("extend", "site-2", "8h").ok().seconds
    up.run("extend", "site-2", "never").ok()
    ttl = max(60, int(4 * took))  # time enough to be seen before its end
    up.run("extend", "site-2", f"{ttl}s").ok()
    begun = time.time()
    up.run("extend", "site-1", f"{ttl}s").ok()
    ec2(up).reboot_instances(InstanceIds=[instance(up)["InstanceId"]])
    assert up.sandbox.settle()
    assert instance(up)["State"]["Name"] == "running"
    assert time.time() < begun + ttl, "too slow to have seen it before its end"
    wait(lambda: instance(up)["State"]["Name"] == "terminated", ttl + 60)
    assert time.time() >= begun + ttl - 5
    after = site(up, "--refresh")
    assert after["machine"] == "gone"
    # Azure bills a machine that is only powered off: this one has deallocated itself, without any schedule
    assert "schedules" not in things(up, "site-2")
    wait(lambda: site(up, "--refresh", name="site-2")["machine"] == "deallocated", 120)
    ended = site(up, name="site-2")
    assert ended["bill_ends"] == ended["expires"]  # as the stack says, which holds the role
    told = up.run("status").ok().out
    assert "site-1: ended itself at" in told
    assert "address and volume go on costing until fedspan down" in told
    refused = up.run("up", "--yes")
    assert refused.code == 13
    assert "its time to live is over" in refused.err
    assert "fedspan up site-1 --ttl 8h" in refused.err
    kinds = [entry.split()[0] for entry in up.inventory() if "site-1" in entry]
    assert {"ec2:elastic-ip", "ec2:volume"} <= set(kinds)
    assert before["address"] == after["address"]


def test_a_site_that_ended_comes_back_with_its_address_and_its_volume(up: World) -> None:
    address = site(up)["address"]
    done = up.json("up", "site-1", "--ttl", "8h", "--yes").ok().last
    assert done["registered"] == ["site-1"]
    back = site(up, "--refresh")
    assert (back["address"], back["machine"], back["drift"]) == (address, "running", [])


def test_a_site_that_ended_comes_back_without_an_end(up: World) -> None:
    refused = up.run("extend", "site-2", "8h")
    assert refused.code == 13
    assert "site-2: its machine has ended" in refused.err
    assert "next: fedspan up site-2 --ttl 8h" in refused.err
    told = up.run("extend", "site-2", "never").ok().out
    assert "next: fedspan up site-2" in told
    write(up, self_deallocate=False)
    before = things(up, "site-2")
    assert "site-2" in up.json("up", "site-2", "--yes").ok().last["registered"]
    back = site(up, "--refresh", name="site-2")
    assert (back["machine"], back["expires"], back["bill_ends"], back["drift"]) == ("running", None, None, [])
    # the option is switched off in place, and Azure's own shutdown ends the bill again
    before.pop("roleAssignments")
    assert things(up, "site-2") == before
    up.run("extend", "site-2", "8h").ok()
    assert "schedules" in things(up, "site-2")
    back = site(up, name="site-2")
    assert back["bill_ends"] == back["expires"]


def test_an_idle_machine_in_azure_ends_its_own_bill_too(up: World) -> None:
    up.run("extend", "site-2", "never").ok()
    write(up, self_deallocate=True, idle_stop="5m")
    up.run("up", "site-2", "--yes").ok()
    root = Path(next(one["root"] for one in up.sandbox.machines() if one["name"] == "site-2"))
    timer, service = root / TIMER_PATH[1:], root / SERVICE_PATH[1:]
    service.write_text(service.read_text().replace(" -ge 300 ", " -ge 3 "))  # three seconds are as five minutes now
    timer.write_text(timer_text().replace("Sec=60s", "Sec=1s"))
    wait(lambda: site(up, "--refresh", name="site-2")["machine"] == "deallocated", 120)
    assert "site-2: off, as no job ran" in up.run("status").ok().out
    assert "schedules" not in things(up, "site-2")


def test_an_end_is_forgotten_with_what_was_taken_down(up: World) -> None:
    assert site(up)["expires"] is not None
    assert "0 left" in up.run("down", "--yes").ok().out
    refused = up.run("extend", "site-1", "never")
    assert refused.code == 13
    assert refused.err.rstrip().endswith("next: fedspan up site-1")
    assert site(up)["expires"] is None
