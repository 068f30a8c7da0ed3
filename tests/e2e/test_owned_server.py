"""A server that its owner deploys: nobody may reach it until its owner says who."""

from __future__ import annotations

import shutil

import pytest
from e2e_world import LEAD, World

pytestmark = pytest.mark.slow

SPEC = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "kit"}},
    "admins": {LEAD: {"role": "lead"}},
}


def runtime_rules(world: World) -> list[str]:
    return [entry for entry in world.inventory() if "rule" in entry and "runtime" in entry]


def test_the_owner_of_a_server_lets_sites_in_by_name_and_address(world: World) -> None:
    world.write(SPEC)
    world.run("provision").ok()
    kit = world.folder / "server"
    shutil.copytree(world.kits / "server", kit)
    first = world.run("up", "--kit", str(kit), "--cloud", "aws", "--region", "eu-central-1", "--yes")
    assert first.code == 13  # nobody compared the CA's fingerprint
    assert "fingerprint" in first.err
    shown = world.json("kit", "show", str(kit)).ok().last
    words = ["--cloud", "aws", "--region", "eu-central-1", "--size", "m7i.large"]
    told = world.run("up", "--kit", str(kit), *words, "--ca-fingerprint", shown["ca_fingerprint"], "--yes").ok().out
    assert "type: ./start.sh --server 127." in told
    assert runtime_rules(world) == []
    world.run("allow", "site-1", "203.0.113.7/32", "--kit", str(kit)).ok()
    assert len(runtime_rules(world)) == 1
    assert "site-1: 203.0.113.7/32" in world.run("allow", "--kit", str(kit)).ok().out
    again = world.json("up", "--kit", str(kit), "--yes").ok().last
    assert again["changed"] == {}
    assert "0 left" in world.run("down", "--kit", str(kit), "--yes").ok().out
    assert world.inventory() == []
