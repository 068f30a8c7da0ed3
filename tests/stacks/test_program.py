"""The program for the Automation API: whose credentials it uses, what it exports, what it refuses, what it imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from stack_graph import run
from stack_samples import CLOUDS, sample

from stacks.access import AwsAccess, AzureAccess
from stacks.errors import StackArgumentError
from stacks.program import participant_program
from stacks.resources import describe

EU = AwsAccess(region="eu-central-1")
WEST = AzureAccess(subscription_id="s", location="westeurope")


def test_the_aws_provider_is_pinned_to_region_account_and_tags() -> None:
    access = AwsAccess(region="eu-central-1", account_id="222222222222", profile="hospital-b")
    provider = run("aws", sample(), access=access)["site-1-aws"].inputs
    assert provider["region"] == "eu-central-1"
    assert provider["profile"] == "hospital-b"
    assert json.loads(provider["allowedAccountIds"]) == ["222222222222"]
    tags = json.loads(provider["defaultTags"])["tags"]
    assert tags["fedspan:federation"] == "digits"
    assert tags["fedspan:deployment"] == "d1"
    assert "endpoints" not in provider
    assert "accessKey" not in provider


def test_with_endpoints_no_metadata_service_is_asked_but_the_account_still_is() -> None:
    endpoints = {"ec2": "http://127.0.0.1:5000", "ssm": "http://127.0.0.1:5000", "sts": "http://127.0.0.1:5000"}
    access = AwsAccess(region="eu-central-1", account_id="222222222222", endpoints=endpoints)
    provider = run("aws", sample(), access=access)["site-1-aws"].inputs
    assert json.loads(provider["endpoints"]) == [endpoints]
    assert provider["skipMetadataApiCheck"] == "true"
    assert provider["skipCredentialsValidation"] == "true"
    assert provider["skipRequestingAccountId"] == "false"


def test_the_azure_provider_is_pinned_to_subscription_and_tenant() -> None:
    access = AzureAccess(subscription_id="sub", tenant_id="ten", location="westeurope", metadata_host="127.0.0.1:8443")
    provider = run("azure", sample("azure"), access=access)["site-1-azure"].inputs
    assert provider["subscriptionId"] == "sub"
    assert provider["tenantId"] == "ten"
    assert provider["location"] == "westeurope"
    assert provider["metadataHost"] == "127.0.0.1:8443"
    assert "clientSecret" not in provider


@pytest.mark.parametrize("cloud", CLOUDS)
def test_both_clouds_export_the_same_names(cloud: str) -> None:
    outputs = run(cloud, sample(cloud, "server")).outputs
    assert outputs.keys() == run("aws", sample("aws", "server")).outputs.keys()
    assert outputs["public_ip"].startswith("203.0.113.")
    assert outputs["private_ip"].startswith("10.42.0.")
    assert (outputs["size"], outputs["ssh_user"]) == (sample(cloud).size, "fedspan")
    assert outputs["vm_id"] == "id-of-server-vm"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_network_more_touches_no_other_rule(cloud: str) -> None:
    before = run(cloud, sample(cloud, "server"))
    after = run(cloud, sample(cloud, "server", runtime_ingress=("10.0.0.0/24", "203.0.113.50/32", "203.0.113.7/32")))
    new = {r.name for r in after.cloud} - {r.name for r in before.cloud}
    assert len(new) == 1
    for resource in before.cloud:
        assert after[resource.name].inputs == resource.inputs


@pytest.mark.parametrize("cloud", CLOUDS)
def test_another_size_changes_the_machine_only(cloud: str) -> None:
    size = "m7i.xlarge" if cloud == "aws" else "Standard_D8s_v5"
    before, after = run(cloud, sample(cloud)), run(cloud, sample(cloud, size=size))
    changed = [r.name for r in before.cloud if after[r.name].inputs != r.inputs]
    assert changed == ["site-1-vm"]


def test_a_new_image_is_taken_only_when_asked_for() -> None:
    assert list(run("aws", sample(reimage=True))["site-1-vm"].request.ignoreChanges) == []
    assert list(run("azure", sample("azure", reimage=True))["site-1-vm"].request.ignoreChanges) == []


def test_a_server_s_price_is_for_machine_volume_and_address() -> None:
    billed = {p.name for p in describe("aws", sample("aws", "server")) if p.billed}
    assert billed == {"server-vm", "server-state", "server-address"}


def test_access_of_another_cloud_or_region_is_refused_before_anything_runs() -> None:
    with pytest.raises(StackArgumentError, match="another cloud's"):
        participant_program("azure", sample("azure"), EU)
    with pytest.raises(StackArgumentError, match="another cloud's"):
        participant_program("aws", sample(), WEST)
    with pytest.raises(StackArgumentError, match="eu-west-1, but access is for eu-central-1"):
        participant_program("aws", sample(region="eu-west-1"), EU)
    with pytest.raises(StackArgumentError, match="neither address nor full"):
        participant_program("aws", sample(), EU, "half")  # type: ignore[arg-type]


def test_planning_imports_no_pulumi_and_a_program_only_its_own_cloud() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import stacks.args, stacks.program, stacks.resources, stacks.catalogue, stacks.cloud_init;"
        "print([m for m in sys.modules if m.split('.')[0] in ('pulumi', 'pulumi_aws', 'pulumi_azure_native', 'grpc')])"
    )
    done = subprocess.run([sys.executable, "-c", code, "."], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
