"""The rights that `fedspan policy` prints are for exactly the spec: keys, images and sizes that it names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.cli.app import run
from deployer.sandbox.aws import permissions

ACCOUNT = "111111111111"
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "defaults": {"owner": "lead@hospital-a.example"},
    "server": {"target": "azure", "region": "westeurope", "size": "Standard_D4s_v5"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {"lead@hospital-a.example": {"role": "lead"}},
}
KEY, MULTI_REGION = (f"arn:aws:kms:eu-central-1:111111111111:key/{name}" for name in ("0a1b", "mrk-0c2d"))
THEIRS = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/shared/providers/Microsoft.Compute"


def written(folder: Path, spec: dict[str, Any], cloud: str) -> dict[str, Any]:
    """What `fedspan policy` writes for a spec."""
    (folder / "federation.yml").write_text(yaml.safe_dump(spec))
    assert run(["-f", str(folder / "federation.yml"), "policy", cloud, "--out", str(folder / "rights.json")]) == 0
    found: dict[str, Any] = json.loads((folder / "rights.json").read_text())
    return found


def test_the_policy_grants_the_use_of_keys_of_ones_own_to_ec2_alone_and_reads_no_image_that_is_named(
    tmp_path: Path,
) -> None:
    spec = copy.deepcopy(SPEC)
    spec["sites"]["site-1"] |= {"kms_key": KEY, "image": "ami-0123456789abcdef0"}
    spec["sites"]["site-2"] = {"target": "aws", "region": "eu-central-1", "sizes": ["m7i.large", "g5.xlarge"]}
    spec["sites"]["site-2"]["kms_key"] = MULTI_REGION
    printed = written(tmp_path, spec, "aws")
    permissions.set_policy(ACCOUNT, printed)  # the emulated AWS takes it
    permissions.set_policy(ACCOUNT, None)
    statements = {one["Sid"]: one for one in printed["Statement"]}
    keys = [one for sid, one in statements.items() if sid.startswith(("UseKey", "GrantKey"))]
    assert {one["Resource"] for one in keys} == {KEY, MULTI_REGION}
    through = [one["Condition"]["StringEquals"] for one in keys]
    assert through == [{"kms:ViaService": "ec2.eu-central-1.amazonaws.com"}] * 4
    grants = [one["Condition"] for one in keys if one["Action"] == ["kms:CreateGrant"]]
    assert [one["Bool"] for one in grants] == [{"kms:GrantIsForAWSResource": "true"}] * 2
    images = statements["ReadImageIds"]["Resource"]  # of site-2's sizes, with GPUs and without
    assert [len([one for one in images if word in one]) for word in ("canonical", "deeplearning")] == [1, 2]


def test_a_spot_machines_request_may_be_read_and_cancelled_in_the_specs_regions_and_only_where_one_is_wanted(
    tmp_path: Path,
) -> None:
    requests = ("ec2:DescribeSpotInstanceRequests", "ec2:CancelSpotInstanceRequests")
    spec = copy.deepcopy(SPEC)
    try:
        for spot in (False, True):
            spec["sites"]["site-1"]["spot"] = spot
            permissions.set_policy(ACCOUNT, written(tmp_path, spec, "aws"))
            for action in requests:
                assert permissions.allowed(ACCOUNT, action, {"aws:RequestedRegion": "eu-central-1"}) is spot
        assert not permissions.allowed(ACCOUNT, requests[1], {"aws:RequestedRegion": "us-east-1"})
    finally:
        permissions.set_policy(ACCOUNT, None)


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_an_id_that_is_none_is_told_as_plan_tells_it(
    tmp_path: Path, cloud: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = copy.deepcopy(SPEC)
    part = spec["sites"]["site-1"] if cloud == "aws" else spec["server"]
    part["kms_key"] = "alias/mine"
    (tmp_path / "federation.yml").write_text(yaml.safe_dump(spec))
    assert run(["-f", str(tmp_path / "federation.yml"), "policy", cloud]) == 3
    assert "kms_key" in capsys.readouterr().err


def test_the_azure_role_reads_what_is_used_and_knows_every_size_that_may_be_tried(tmp_path: Path) -> None:
    spec = copy.deepcopy(SPEC)
    plain = written(tmp_path, spec, "azure")["Actions"]
    for action in ("diskEncryptionSets/read", "images/read", "virtualMachines/extensions/write"):
        assert f"Microsoft.Compute/{action}" not in plain
    spec["server"] |= {"kms_key": f"{THEIRS}/diskEncryptionSets/disks", "image": f"{THEIRS}/images/golden"}
    spec["sites"]["site-2"] = {
        "target": "azure",
        "region": "westeurope",
        "sizes": ["Standard_D4s_v5", "Standard_NV36ads_A10_v5"],
        "image": f"{THEIRS}/galleries/ours/images/golden/versions/1.0.0",
    }
    spec["sites"]["site-3"] = {key: value for key, value in spec["sites"]["site-2"].items() if key != "image"}
    role = written(tmp_path, spec, "azure")
    for action in ("diskEncryptionSets/read", "images/read", "galleries/images/versions/read"):
        assert f"Microsoft.Compute/{action}" in role["Actions"]
    assert "Microsoft.Compute/virtualMachines/extensions/write" in role["Actions"]
    assert "/subscriptions/00000000-1111-2222-3333-444444444444" in role["AssignableScopes"]
    assert [one for one in role["Actions"] if "Authorization" in one] == []
    spec["sites"]["site-3"]["self_deallocate"] = True
    given = [one for one in written(tmp_path, spec, "azure")["Actions"] if "Authorization" in one]
    verbs = ("permissions/read", *(f"roleAssignments/{verb}" for verb in ("delete", "read", "write")))
    assert given == [f"Microsoft.Authorization/{verb}" for verb in verbs]
    del spec["sites"]["site-3"]  # into an image of one's own nobody installs a driver
    role = written(tmp_path, spec, "azure")
    assert "Microsoft.Compute/virtualMachines/extensions/write" not in role["Actions"]
