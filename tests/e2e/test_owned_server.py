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


def rules(world: World) -> list[str]:
    return [entry for entry in world.inventory() if "securityRules" in entry]


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
