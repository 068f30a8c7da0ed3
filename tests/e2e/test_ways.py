"""Two ways of equal rank: the lead deploys (here by SSH on a host), or a kit's owner does. Then the server moves.

The tests build on one another: one federation, three targets.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_world import LEAD, PATIENCE, World, copy_of

from deployer.keys import KeyStore, host_entry
from deployer.ssh import scan_host_key

pytestmark = pytest.mark.slow

EGRESS = "203.0.113.9"


@pytest.fixture(scope="module")
def spec(world: World) -> dict[str, Any]:
    """A server on Azure, a site on a machine that is there already, a site whose owner deploys it."""
    user_key = KeyStore(Path(world.environment["HOME"]) / ".ssh").login("ana")
    address = world.sandbox.host("gpu-box", "fedspan", user_key.public, egress=EGRESS)
    assert world.sandbox.settle()
    return {
        "version": 1,
        "name": "digits",
        "server": {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"},
        "sites": {
            "site-1": {
                "target": "host",
                "host": address,
                "user": "fedspan",
                "ssh_port": world.sandbox.ssh_port,
                "egress": [f"{EGRESS}/32"],
            },
            "site-2": {"target": "kit"},
        },
        "admins": {LEAD: {"role": "lead", "from": ["198.51.100.0/24"]}},
    }


@pytest.fixture(scope="module")
def owner(world: World) -> World:
    """Hospital B: another home, another state, the same emulated world."""
    folder = world.folder / "hospital-b"
    for name in ("home", "state", "fed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scripts = str(Path(sys.executable).parent)
    environment = {
        **world.environment,
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PATH": os.pathsep.join([scripts, world.environment["PATH"]]),
    }
    return World(folder, environment)


def status(world: World) -> dict[str, dict[str, Any]]:
    """By participant, once the server answers (on a busy machine the first short visit may be too short)."""
    end = time.monotonic() + 180
    while True:
        found = world.json("status").ok().last
        if found["server"] or time.monotonic() > end:
            return {line["name"]: line for line in found["participants"]}


def test_a_host_whose_key_nobody_knows_is_not_logged_in_to(world: World, spec: dict[str, Any]) -> None:
    world.write(spec)
    refused = world.run("up", "site-1", "--yes")
    assert refused.code == 10, refused.err
    assert "its host key is not known" in refused.err
    assert "SHA256:" in refused.err


def test_a_site_on_a_host_is_deployed_by_ssh(world: World, spec: dict[str, Any]) -> None:
    site = spec["sites"]["site-1"]
    key = scan_host_key(site["host"], site["ssh_port"])
    known = Path(world.environment["HOME"]) / ".ssh" / "known_hosts"
    known.write_text(f"{host_entry(site['host'], site['ssh_port'])} {key}\n")
    done = world.json("up", "--yes").ok().last
    assert done["registered"] == ["site-1"]
    assert done["awaited"] == ["site-2"]
    found = status(world)
    assert (found["site-1"]["target"], found["site-1"]["runtime"]) == ("host", "registered")
    assert found["site-2"]["phase"] == "awaited"


def test_an_owner_deploys_a_kit_and_the_lead_sees_by_whom(world: World, owner: World) -> None:
    kit = owner.fed / "site-2"
    subprocess.run(["cp", "-a", str(world.kits / "site-2"), str(kit)], check=True)
    fingerprint = re.search(r"CA fingerprint \(SHA-256\): ([0-9A-F:]+)", (kit / "README.txt").read_text())
    assert fingerprint is not None
    words = ["--cloud", "aws", "--region", "eu-west-1", "--size", "m7i.large", "--profile", "hospital-b", "--yes"]
    process = subprocess.Popen(
        [str(kit / "start.sh"), *words, "--ca-fingerprint", fingerprint[1]],
        env=owner.environment,
        cwd=owner.fed,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    told: list[str] = []
    allow = None
    end = time.monotonic() + PATIENCE
    for line in process.stdout:
        told.append(line)
        assert time.monotonic() < end, "".join(told)
        allow = re.search(r"fedspan (allow site-2 \S+/32)", line)
        if allow:
            break
    assert allow is not None, "".join(told)
    world.run(*allow[1].split()).ok()
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, "".join(told) + rest
    assert "registered: site-2" in rest
    found = status(world)["site-2"]
    assert (found["runtime"], found["deployed_by"], found["place"]) == ("registered", "owner", "eu-west-1")
    assert not (kit / ".fedspan").exists()
    assert len(list((owner.folder / "state" / "fedspan" / "owners").iterdir())) == 1
    accounts = {item.account for item in world.sandbox.inventory() if item.kind == "ec2:instance"}
    assert accounts == {"222222222222"}


def test_the_owners_up_again_changes_nothing(world: World, owner: World) -> None:
    again = owner.json("up", "--kit", str(owner.fed / "site-2"), "--yes").ok().last
    assert (again["changed"], again["pushed"]) == ({}, {"site-2": []})
    assert again["nothing_changed"] is True


def test_a_server_that_moves_keeps_its_kits_and_its_sites(world: World, spec: dict[str, Any], owner: World) -> None:
    signatures = {path: path.read_bytes() for path in world.kits.glob("*/startup/signature.json")}
    before = world.endpoint("site-1")
    moved = copy_of(spec)
    moved["server"]["region"] = "northeurope"
    world.write(moved)
    told = world.json("up", "--yes").ok()
    plan = next(event for event in told.events if event.get("event") == "plan")
    assert "moves from azure westeurope" in plan["participants"][0]["note"]
    assert told.last["registered"] == ["site-1"]
    after = world.endpoint("site-1")
    assert {path: path.read_bytes() for path in signatures} == signatures
    assert status(world)["server"]["place"] == "northeurope"
    # the owner of site-2 is told the new address; the kit stays the same
    assert after.rpartition(":")[2] == before.rpartition(":")[2]
    owner.run("up", "--kit", str(owner.fed / "site-2"), "--server", after, "--yes").ok()
    assert status(world)["site-2"]["runtime"] == "registered"


def test_an_owner_takes_down_only_what_is_theirs(world: World, owner: World) -> None:
    asked = subprocess.run(
        [str(owner.fed / "site-2" / "stop.sh"), "--cloud"],
        env=owner.environment,
        cwd=owner.fed,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert asked.returncode == 13, asked.stderr
    told = owner.run("down", "--kit", str(owner.fed / "site-2"), "--yes").ok().out
    assert "0 left (asked aws eu-west-1)" in told
    assert re.search(r"the server's owner must type: fedspan allow site-2 \S+/32 --remove", told), told
    assert "the kit stays" in told
    assert not any("ec2:" in entry for entry in world.inventory())
    assert status(world)["site-1"]["runtime"] == "registered"


def test_down_leaves_the_host_as_it_was(world: World, spec: dict[str, Any]) -> None:
    box = next(machine for machine in world.sandbox.machines() if machine["cloud"] == "host")
    root = Path(box["root"])
    assert (root / "opt" / "fedspan").is_dir()
    assert "0 left" in world.run("down", "--yes").ok().out
    assert not (root / "opt" / "fedspan").exists()
    assert world.inventory() == []
    kit = yaml.safe_load((world.kits / "site-1" / "startup" / "participant.yml").read_text())
    assert kit["name"] == "site-1"
