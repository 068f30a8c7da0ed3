"""Before anything is made both clouds are asked whether it can be: the real command against the emulated clouds."""

from __future__ import annotations

import pytest
from e2e_world import SPEC, World, ask_arm, checks, copy_of, refused, subscription

AWS = ("aws", "111111111111", "eu-central-1")


def test_everything_is_checked_and_the_zones_that_offer_each_size_are_shown(planned: World) -> None:
    result = planned.json("plan").ok()
    found = result.last["checks"]
    assert [check for check in found if check["level"] != "ok"] == []
    subjects = {"credentials", "region", "provider", "image", "size", "quota", "rules", "names", "address", "clock"}
    assert {check["subject"] for check in found} == subjects
    zones = {part["name"]: part["zone_candidates"] for part in result.last["participants"]}
    assert zones == {"server": ["1", "2", "3"], "site-1": ["eu-central-1a", "eu-central-1b", "eu-central-1c"]}
    told = "\n".join(check["what"] for check in found)
    for words in ("account 111111111111 as arn:aws", "subscription", "VPCs per Region: ", "Total Regional vCPUs: 0 of"):
        assert words in told


@pytest.mark.parametrize(
    ("quota", "value", "words"),
    [
        ("L-1216C47A", 1, "vCPUs of Running On-Demand Standard"),
        ("L-F678F1CE", 1, "VPCs per Region: 1 of 1 used, 1 needed"),
        ("L-A4707A72", 0, "Internet gateways per Region: 0 of 0 used"),
        ("L-0263D0A3", 0, "EC2-VPC Elastic IPs: 0 of 0 used"),
    ],
)
def test_an_aws_quota_that_is_used_up_is_told_with_what_to_ask_for(
    planned: World, quota: str, value: int, words: str
) -> None:
    before = {"L-1216C47A": 640}.get(quota, 5)
    planned.sandbox.set_quota(*AWS, quota, value)
    try:
        refused(planned, 8, words, f"--quota-code {quota}", "--desired-value", "checked before anything was made")
    finally:
        planned.sandbox.set_quota(*AWS, quota, before)


def test_an_azure_quota_and_a_size_that_the_subscription_may_not_use(planned: World) -> None:
    place = ("azure", subscription(planned), "westeurope")
    planned.sandbox.set_quota(*place, "standardDSv5Family", 2)
    try:
        refused(planned, 8, "standardDSv5Family vCPUs: 0 of 2 used, 4 needed", "portal, Quotas, Compute")
    finally:
        planned.sandbox.set_quota(*place, "standardDSv5Family", 350)
    planned.faults(no_capacity=("westeurope",))
    try:
        refused(planned, 8, "server: Standard_D4s_v5 is not offered in westeurope: NotAvailableForSubscription")
    finally:
        planned.faults()


def test_a_used_up_quota_for_spot_machines_leads_to_on_demand_as_far_as_there_is_room(planned: World) -> None:
    sites = {
        "site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large", "spot": True},
        "site-2": {"target": "aws", "region": "eu-central-1", "size": "m7i.xlarge", "spot": True},
        "site-3": {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5", "spot": True},
    }
    planned.write(copy_of(SPEC, sites=sites))
    planned.run("provision").ok()
    azure = ("azure", subscription(planned), "westeurope")
    planned.sandbox.set_quota(*AWS, "L-34B43A08", 3)
    planned.sandbox.set_quota(*azure, "lowPriorityCores", 0)
    try:
        told = checks(planned.json("plan").ok(), "quota")
        instead = [check["why"].rpartition("; ")[2] for check in told if check["level"] == "warning"]
        assert sorted(instead) == ["on demand instead: site-2", "on demand instead: site-3"]
        assert any("Standard" in check["what"] and "4 needed" in check["what"] for check in told)  # site-2's
        assert any("Total Regional vCPUs: 0 of" in check["what"] and "6 needed" in check["what"] for check in told)
        planned.sandbox.set_quota(*AWS, "L-1216C47A", 3)
        refused(planned, 8, "vCPUs of Running On-Demand Standard", "0 of 3 used, 4 needed")
    finally:
        planned.sandbox.set_quota(*AWS, "L-1216C47A", 640)
        planned.sandbox.set_quota(*AWS, "L-34B43A08", 640)
        planned.sandbox.set_quota(*azure, "lowPriorityCores", 350)
        planned.write(SPEC)
        planned.run("provision").ok()


@pytest.mark.slow
def test_several_things_in_the_way_are_told_at_once_and_doctor_tells_them_too(planned: World) -> None:
    planned.sandbox.set_quota(*AWS, "L-1216C47A", 0)
    planned.sandbox.set_quota(*AWS, "L-0EA8095F", 0)
    try:
        refused(planned, 18, "2 things stand in the way", "1 of 0 rules", "0 of 0 used, 2 needed", "fedspan doctor")
        told = planned.run("plan").ok().out
        assert "2 in the way" in told
        doctor = planned.run("doctor")
        assert doctor.code in (8, 18)
        assert "quota: how many vCPUs" in doctor.out
        assert "no  vCPUs of Running On-Demand Standard" in doctor.out
    finally:
        planned.sandbox.set_quota(*AWS, "L-1216C47A", 640)
        planned.sandbox.set_quota(*AWS, "L-0EA8095F", 60)


@pytest.mark.slow
def test_an_unregistered_provider_and_a_name_that_is_taken(planned: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", planned.sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    ask_arm(planned, "POST", "/providers/Microsoft.Network/unregister")
    try:
        refused(
            planned, 18, "Microsoft.Network is not registered", "az provider register --namespace Microsoft.Network"
        )
    finally:
        ask_arm(planned, "POST", "/providers/Microsoft.Network/register")
    group = "/resourcegroups/digits-server-rg"
    ask_arm(planned, "PUT", group, {"location": "westeurope", "tags": {"team": "somebody-else"}})
    try:
        result = planned.run("up", "--yes")
        assert result.code == 13, result.out + result.err
        assert "resource group digits-server-rg exists and is not this deployment's" in result.err
        assert len(planned.inventory()) == 1
    finally:
        ask_arm(planned, "DELETE", group)


def test_an_address_from_which_nobody_could_log_in_is_told(planned: World) -> None:
    spec = copy_of(SPEC)
    spec["defaults"]["ssh_from"] = ["203.0.113.0/24"]
    planned.write(spec)
    try:
        (found,) = checks(planned.json("plan").ok(), "address")
    finally:
        planned.write(SPEC)
    assert found["level"] == "warning"
    assert found["what"] == "SSH will be open from 203.0.113.0/24, and this machine is 198.51.100.10"


def test_a_zone_that_has_not_the_size_is_refused_with_those_that_have(planned: World) -> None:
    spec = copy_of(SPEC)
    spec["sites"]["site-1"] |= {"zone": "eu-central-1z"}
    planned.write(spec)
    try:
        refused(planned, 8, "site-1: m7i.large is not offered in zone eu-central-1z", "zone: eu-central-1a")
    finally:
        planned.write(SPEC)


def test_doctor_explains_everything_and_makes_nothing(planned: World) -> None:
    result = planned.run("doctor").ok()
    for words in ("the sandbox's stand-in for pulumi", "aws v", "its certificate lasts until", "clock: signatures"):
        assert words in result.out
    assert planned.inventory() == []
    document = planned.json("doctor").ok().last
    assert document["refused"] == 0


def test_doctor_without_a_spec_tells_of_the_engine_and_of_what_is_missing(planned: World) -> None:
    (planned.folder / "empty").mkdir(exist_ok=True)
    result = planned.run("doctor", "-f", str(planned.folder / "empty"))
    assert result.code == 3
    assert "stand-in for pulumi" in result.out
    assert "fedspan init" in result.out
