"""A site's machine ends itself by systemd's own timer, whatever is rebooted and whoever turns it on again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from e2e_world import SPEC, World, arm, copy_of
from nspawn_world import PATIENCE_S, make_nspawn_world, on, reboot
from waiting import until

from deployer import idle_units
from deployer.expiry_units import TIMER, calendar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


SITES = {
    "aws": {"target": "aws", "region": "eu-central-1", "size": "m7i.large", "idle_stop": "1h"},
    "azure": {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"},
}


@pytest.fixture
def up(cache: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A server at AWS and a site in the cloud that the test names, registered, without an end."""
    world = make_nspawn_world(cache)
    try:
        server = {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}
        world.write(copy_of(SPEC, server=server, sites={"site-1": SITES[request.param]}))
        world.run("up", "--yes").ok()
        yield world
    finally:
        world.close()


def line(world: World, name: str, *words: str) -> dict[str, Any]:
    lines = world.json("status", *words).ok().last["participants"]
    return next(line for line in lines if line["name"] == name)


def machine(world: World, name: str) -> str:
    """The state of a participant's machine, as the sandbox has it; "" where there is none."""
    return next((one["state"] for one in world.sandbox.machines() if one["name"] == name), "")


def azure_id(world: World, word: str) -> str:
    return next(item.id for item in world.sandbox.inventory() if word in item.id and "site-1" in item.id)


def vms(world: World) -> Any:
    return ComputeManagementClient(**arm(world)).virtual_machines


def group_and_name(id: str) -> tuple[str, str]:
    return id.split("/")[4], id.split("/")[-1]


def power(world: World) -> str:
    """What Azure says of the site's machine."""
    view = vms(world).instance_view(*group_and_name(azure_id(world, "/virtualMachines/")))
    return next(str(status.display_status) for status in view.statuses if status.code.startswith("PowerState/"))


def date_of(world: World) -> str:
    """When systemd is going to start the unit next, as it says itself; "" where it knows no date."""
    return on(world, "site-1", "systemctl", "show", TIMER, "-p", "NextElapseUSecRealtime", "--value", "--timestamp=utc")


def end_in(world: World, ttl: str) -> float:
    """Gives the site an end; when it is, seconds since the epoch."""
    world.run("extend", "site-1", ttl).ok()
    shown = line(world, "site-1")["expires"]
    return datetime.fromisoformat(shown.replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("up", ["aws"], indirect=True)
def test_the_date_is_kept_over_a_reboot_and_aws_terminates_the_machine_then(up: World) -> None:
    begun = time.monotonic()
    reboot(up, "site-1")
    took = time.monotonic() - begun
    end = end_in(up, f"{max(130, 60 + 4 * took):.0f}s")  # a reboot is to be seen before, however slow this machine is
    before = date_of(up)
    assert calendar(end) in before
    reboot(up, "site-1")
    assert date_of(up) == before
    # whether it is idle is looked at after the reboot too, and again after each look that left it on
    on(up, "site-1", "sudo", "-n", "systemctl", "start", idle_units.SERVICE)
    assert on(up, "site-1", "cat", "/run/fedspan-idle").split()[1].startswith("mark1")
    show = ["systemctl", "show", idle_units.TIMER, "--value", "-p"]
    assert on(up, "site-1", *show, "ActiveState") == "active"
    assert on(up, "site-1", *show, "NextElapseUSecMonotonic") not in ("", "infinity")
    assert time.time() < end, "too slow to have seen it before its end"
    until(lambda: machine(up, "site-1") == "", end - time.time() + PATIENCE_S, "the end of the machine")
    assert time.time() >= end
    assert line(up, "site-1", "--refresh")["machine"] == "gone"
    # the server has no end; whoever powers it off from inside finds it stopped, with all that was on it
    up.run("ssh", "server", "--", "sudo", "-n", "systemctl", "poweroff")
    until(lambda: machine(up, "server") == "stopped", PATIENCE_S, "the server's end")
    assert line(up, "server", "--refresh")["machine"] == "stopped"
    assert up.json("start", "server", "--yes").ok()
    assert line(up, "server", "--refresh")["machine"] == "running"


@pytest.mark.parametrize("up", ["azure"], indirect=True)
def test_a_machine_in_azure_bills_on_unless_it_deallocates_itself_and_turned_on_it_would_end_again(up: World) -> None:
    end = end_in(up, "60s")
    # somebody deletes Azure's own shutdown: what remains is the machine's
    ResourceManagementClient(**arm(up)).resources.begin_delete_by_id(
        azure_id(up, "schedules"), api_version="2018-09-15"
    ).wait()
    until(lambda: power(up) == "VM stopped", end - time.time() + PATIENCE_S, "the end of the machine")
    assert time.time() >= end
    assert line(up, "site-1", "--refresh")["machine"] == "stopped"
    told = up.run("status", "--refresh").ok().out
    assert "site-1: powered itself off at" in told
    assert "Azure bills it on" in told
    up.run("stop", "site-1", "--yes").ok()
    assert power(up) == "VM deallocated"
    refused = up.run("start", "site-1", "--yes")
    assert refused.code == 13
    assert "its time to live is over" in refused.err
    assert "fedspan up site-1 --ttl 8h" in refused.err
    # somebody turns it on all the same
    vms(up).begin_start(*group_and_name(azure_id(up, "/virtualMachines/"))).wait()
    until(lambda: up.run("ssh", "site-1", "--", "true").code == 0, PATIENCE_S, "SSH")
    assert date_of(up) == ""
    assert on(up, "site-1", "systemctl", "show", TIMER, "-p", "NextElapseUSecMonotonic", "--value") != "infinity"
    up.spec["sites"]["site-1"]["self_deallocate"] = True
    up.write(up.spec)
    assert up.json("up", "site-1", "--ttl", "8h", "--yes").ok().last["registered"] == ["site-1"]
    again = line(up, "site-1")["expires"]
    assert calendar(datetime.fromisoformat(again.replace("Z", "+00:00")).timestamp()) in date_of(up)
    assert power(up) == "VM running"
    # by an identity of its own it ends its bill too
    up.run("extend", "site-1", "never").ok()
    end = end_in(up, "60s")
    until(lambda: power(up) == "VM deallocated", end - time.time() + PATIENCE_S, "the end of the bill")
    assert time.time() >= end
