"""A plan tells what will be, what it costs and what will be open; a saved one is applied exactly, or refused."""

from __future__ import annotations

import json

import pytest
from e2e_world import SPEC, World, copy_of


def test_the_plan_as_json_names_place_size_disks_price_changes_and_openings(planned: World) -> None:
    document = planned.json("plan").ok().last
    site = next(part for part in document["participants"] if part["name"] == "site-1")
    assert (site["target"], site["region"], site["size"]) == ("aws", "eu-central-1", "m7i.large")
    assert (site["os_disk_gib"], site["state_disk_gib"]) == (64, 32)
    assert site["create"] == len(site["steps"]) > 10
    assert site["total_usd_hour"] == pytest.approx(site["usd_hour"] + site["extras_usd_hour"], abs=1e-4)
    assert site["usd_month"] == pytest.approx(site["total_usd_hour"] * 730, rel=1e-3)
    assert site["price_as_of"].startswith("20")
    total = sum(part["total_usd_hour"] for part in document["participants"])
    assert document["total_usd_hour"] == pytest.approx(total, abs=1e-3)
    server = next(part for part in document["participants"] if part["name"] == "server")
    assert {"port": 8002, "from": None, "who": "site-1"} in server["open"]
    assert planned.inventory() == []


def test_the_plan_as_a_table_has_disks_and_the_price_of_a_month(planned: World) -> None:
    told = planned.run("plan").ok().out
    assert "64+32 GiB" in told
    assert "$/month" in told
    assert "with disks and address (as of 20" in told


@pytest.mark.slow
def test_a_cap_refuses_plan_and_up_and_an_unknown_price(planned: World) -> None:
    for verb in ("plan", "up"):
        refused = planned.run(verb, "--max-hourly-cost", "0.05", "--yes")
        assert refused.code == 13, refused.err
        assert "above the cap of $0.05" in refused.err
        assert "site-1 $0." in refused.err
    planned.run("plan", "--max-hourly-cost", "5").ok()
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["size"] = "c7i.large"  # in no catalogue of ours
    planned.write(spec)
    try:
        refused = planned.run("up", "--max-hourly-cost", "5", "--yes")
        assert refused.code == 13, refused.err
        assert "the price of site-1 is not known" in refused.err
        assert "--allow-unknown-price" in refused.err
        planned.run("plan", "--max-hourly-cost", "5", "--allow-unknown-price").ok()
    finally:
        planned.write(SPEC)
    assert planned.inventory() == []


@pytest.mark.slow
def test_a_saved_plan_is_applied_exactly_and_peers_addresses_are_filled_in(planned: World) -> None:
    planned.run("plan", "--out", "plan.json").ok()
    saved = json.loads((planned.fed / "plan.json").read_text())
    planned.run("allow", "site-1", "203.0.113.77/32", "--yes")
    refused = planned.run("up", "--plan", "plan.json", "--yes")
    assert refused.code == 13, refused.err
    assert "port 8002 open for 203.0.113.77/32" in refused.err
    assert planned.inventory() == []
    planned.run("allow", "site-1", "203.0.113.77/32", "--remove", "--yes")
    done = planned.json("up", "--plan", "plan.json").ok().last
    assert sum(done["changed"].values()) >= saved["changes"]
    after = planned.json("plan", "--refresh").ok().last
    assert after["changes"] == 0
    server = next(part for part in after["participants"] if part["name"] == "server")
    filled = [entry for entry in server["open"] if entry["port"] == 8002 and entry["who"] == "site-1"]
    assert len(filled) == 1
    assert filled[0]["from"].endswith("/32")
    planned.run("down", "--yes").ok()
    assert planned.inventory() == []
