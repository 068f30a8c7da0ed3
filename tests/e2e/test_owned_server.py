"""A server that its owner deploys: nobody may reach it until its owner says who."""

from __future__ import annotations

import shutil

import pytest
from e2e_world import LEAD, World, ec2

pytestmark = pytest.mark.slow

SPEC = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "kit"}},
    "admins": {LEAD: {"role": "lead"}},
}


def rules(world: World) -> list[str]:
    """Those that let somebody in."""
    return [entry for entry in world.inventory() if "securityRules" in entry and "deny" not in entry]


def test_the_owner_of_a_server_lets_sites_in_by_name_and_address(world: World) -> None:
    world.write(SPEC)
    world.run("provision").ok()
    kit = world.folder / "server"
    shutil.copytree(world.kits / "server", kit)
    first = world.run("up", "--kit", str(kit), "--cloud", "azure", "--region", "westeurope", "--yes")
    assert first.code == 13  # nobody compared the CA's fingerprint
    assert "fingerprint" in first.err
    lines = (kit / "README.txt").read_text().splitlines()
    fingerprint = next(line.split(": ")[1] for line in lines if "SHA-256" in line)
    words = ["--cloud", "azure", "--region", "westeurope", "--size", "Standard_D2s_v5"]
    told = world.run("up", "--kit", str(kit), *words, "--ca-fingerprint", fingerprint, "--yes").ok().out
    assert "type: ./start.sh --server 127." in told
    only_ssh = rules(world)
    assert len(only_ssh) == 1
    world.run("allow", "site-1", "203.0.113.7/32", "--kit", str(kit)).ok()
    assert len(rules(world)) == 2
    assert "site-1: 203.0.113.7/32" in world.run("allow", "--kit", str(kit)).ok().out
    again = world.json("up", "--kit", str(kit), "--yes").ok().last
    assert again["changed"] == {}
    assert "0 left" in world.run("down", "--kit", str(kit), "--yes").ok().out
    assert world.inventory() == []


def test_an_owners_machine_is_made_where_there_is_room_and_what_somebody_changed_is_put_right(world: World) -> None:
    kit = str(world.folder / "server")
    words = ["--cloud", "aws", "--region", "eu-central-1", "--size", "m7i.large"]
    world.faults(no_capacity=["eu-central-1a"])
    told = world.run("up", "--kit", kit, *words, "--yes").ok().out
    assert "no room for m7i.large in eu-central-1; trying m7i.large in eu-central-1b" in told
    assert [machine["zone"] for machine in world.sandbox.machines()] == ["eu-central-1b"]
    world.faults()
    assert world.json("up", "--kit", kit, "--yes").ok().last["nothing_changed"] is True
    cloud = ec2(world)
    ssh = world.sandbox.ssh_port
    mine = [{"Name": "tag:fedspan:participant", "Values": ["server"]}]
    (rule,) = [
        one for one in cloud.describe_security_group_rules(Filters=mine)["SecurityGroupRules"] if one["FromPort"] == ssh
    ]
    cloud.revoke_security_group_ingress(GroupId=rule["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    assert world.json("up", "--kit", kit, "--refresh", "--yes").ok().last["changed"] == {"server": 1}
    assert "0 left" in world.run("down", "--kit", kit, "--yes").ok().out
    assert world.inventory() == []
