"""The rights that `fedspan policy` prints are enough for everything, and nothing is done that they do not grant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_world import SPEC, World, copy_of

ACCOUNT = "111111111111"


@pytest.fixture
def policy(planned: World) -> Iterator[dict[str, Any]]:
    """The policy for the spec; whatever is enforced in a test ends with it."""
    planned.run("policy", "aws", "--out", "policy.json").ok()
    yield json.loads((planned.fed / "policy.json").read_text())
    planned.sandbox.enforce_policy(ACCOUNT, None)


def without(policy: dict[str, Any], *sids: str, actions: tuple[str, ...] = ()) -> dict[str, Any]:
    """The policy without some statements or actions."""
    kept = [
        {**one, "Action": [action for action in one["Action"] if action not in actions]}
        for one in policy["Statement"]
        if one["Sid"] not in sids
    ]
    return {**policy, "Statement": kept}


def test_the_policy_names_regions_images_and_the_federations_tag(planned: World, policy: dict[str, Any]) -> None:
    statements = {one["Sid"]: one for one in policy["Statement"]}
    assert statements["Make"]["Condition"]["StringEquals"]["aws:RequestedRegion"] == ["eu-central-1"]
    changes = statements["ChangeAndDeleteOurs"]["Condition"]["StringEquals"]
    assert changes["aws:ResourceTag/fedspan:federation"] == "digits"
    assert "ec2:CreateAction" in statements["TagWhatIsBeingMade"]["Condition"]["StringEquals"]
    (image,) = statements["ReadImageIds"]["Resource"]
    assert image.startswith("arn:aws:ssm:*::parameter/aws/service/canonical/ubuntu/")
    assert not any("*" in action for one in policy["Statement"] for action in one["Action"])
    assert "FirstSpotMachine" not in statements
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["spot"] = True
    planned.write(spec)
    try:
        assert "spot.amazonaws.com" in planned.run("policy", "aws").ok().out
    finally:
        planned.write(SPEC)


def test_the_azure_role_is_for_the_specs_subscription_and_has_no_wildcard(planned: World) -> None:
    spec = copy_of(SPEC)
    spec["server"]["subscription"] = "4a5e0e57-b06c-55e4-a705-dd940888e473"
    planned.write(spec)
    try:
        planned.run("policy", "azure", "--out", "role.json").ok()
    finally:
        planned.write(SPEC)
    role = json.loads((planned.fed / "role.json").read_text())
    assert role["AssignableScopes"] == ["/subscriptions/4a5e0e57-b06c-55e4-a705-dd940888e473"]
    assert "Microsoft.Compute/virtualMachines/write" in role["Actions"]
    assert not any("*" in action or "Authorization" in action for action in role["Actions"])


def test_what_may_not_be_asked_is_said_and_stops_nothing(planned: World, policy: dict[str, Any]) -> None:
    planned.sandbox.enforce_policy(ACCOUNT, without(policy, actions=("servicequotas:GetServiceQuota",)))
    checks = planned.json("plan").ok().last["checks"]
    unasked = [check for check in checks if check["level"] != "ok"]
    assert {check["level"] for check in unasked} == {"unknown"}
    assert {check["subject"] for check in unasked} == {"quota", "counts"}
    assert {check["why"] for check in unasked} == {"these credentials lack servicequotas:GetServiceQuota"}
    planned.sandbox.enforce_policy(ACCOUNT, policy)
    assert [check for check in planned.json("plan").ok().last["checks"] if check["level"] != "ok"] == []


@pytest.mark.slow
def test_tags_need_their_own_right_also_while_something_is_made(planned: World, policy: dict[str, Any]) -> None:
    planned.sandbox.enforce_policy(ACCOUNT, without(policy, "TagWhatIsBeingMade"))
    result = planned.run("up", "site-1", "--yes")
    assert result.code == 5, result.out + result.err
    assert "ec2:CreateTags" in result.err
    assert not any(entry.startswith("ec2:") for entry in planned.inventory())
    planned.sandbox.enforce_policy(ACCOUNT, policy)
    planned.run("down", "--yes").ok()
    assert planned.inventory() == []


@pytest.mark.slow
def test_with_only_that_policy_everything_is_made_changed_and_taken_down(
    planned: World, policy: dict[str, Any]
) -> None:
    planned.sandbox.enforce_policy(ACCOUNT, policy)
    planned.run("up", "--yes").ok()
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["size"] = "m7i.xlarge"
    spec["defaults"]["ssh_from"] = ["198.51.100.10/32", "203.0.113.0/24"]
    planned.write(spec)
    try:
        planned.run("up", "--yes").ok()
        planned.run("status").ok()
        planned.run("down", "--yes").ok()
    finally:
        planned.write(SPEC)
    assert planned.inventory() == []


@pytest.mark.slow
def test_what_is_not_the_federations_is_not_touched(planned: World, policy: dict[str, Any]) -> None:
    """The policy of another federation can't take this one's things down."""
    text = json.dumps(policy).replace('"digits"', '"letters"')
    planned.sandbox.enforce_policy(ACCOUNT, policy)
    planned.run("up", "site-1", "--yes", environment={"FEDSPAN_REGISTER_DEADLINE": "1"})
    there = [entry for entry in planned.inventory() if entry.startswith("ec2:")]
    assert any("ec2:instance" in entry for entry in there)
    planned.sandbox.enforce_policy(ACCOUNT, json.loads(text))
    refused = planned.run("down", "--yes")
    assert refused.code == 5, refused.out + refused.err
    assert [entry for entry in planned.inventory() if "ec2:instance" in entry] != []
    planned.sandbox.enforce_policy(ACCOUNT, policy)
    planned.run("down", "--yes").ok()
    assert planned.inventory() == []
