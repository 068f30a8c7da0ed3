"""The plugin as a provider: configuration and identity, tags, regions, faults, cancelling, functions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from deployer.sandbox.aws import AwsProvider
from deployer.sandbox.aws.accounts import credentials
from deployer.sandbox.provider_values import UNKNOWN, plain, secret

from .aws_engine import CheckFailed, Engine, InitFailed, Resource, serving
from .aws_programs import GATEWAY, MACHINE, ROUTE, VPC, participant
from .conftest import REGION, UBUNTU, Account, Cloud


@pytest.fixture
def plugin(cloud: Cloud) -> Iterator[str]:
    with serving(AwsProvider(cloud.server.url, {"AWS_PROFILE": "hospital-c"})) as address:
        yield address


def identity(engine: Engine) -> str:
    return str(engine.invoke("aws:index/getCallerIdentity:getCallerIdentity")["accountId"])


# -- configuration -----------------------------------------------------------------------------------------------
def test_a_profile_is_an_account(plugin: str) -> None:
    assert identity(Engine(plugin).configure(region=REGION, profile="hospital-b")) == "222222222222"


def test_the_commands_environment_says_whose_credentials_it_has(plugin: str, cloud: Cloud) -> None:
    assert identity(Engine(plugin).configure(region=REGION)) == "333333333333"
    keys = {"AWS_ACCESS_KEY_ID": credentials("555555555555").access_key, "AWS_REGION": "eu-west-1"}
    with serving(AwsProvider(cloud.server.url, keys)) as address:
        engine = Engine(address).configure()
        assert identity(engine) == "555555555555"
        assert engine.invoke("aws:index/getRegion:getRegion")["region"] == "eu-west-1"


def test_credentials_of_another_account_are_refused(plugin: str) -> None:
    allowed = json.dumps(["222222222222"])
    with pytest.raises(grpc.RpcError) as caught:
        Engine(plugin).configure(region=REGION, profile="hospital-a", allowedAccountIds=allowed)
    assert caught.value.details() == "AWS account ID not allowed: 111111111111"  # type: ignore[attr-defined]
    Engine(plugin).configure(region=REGION, profile="hospital-b", allowedAccountIds=allowed)


def test_an_unknown_profile_and_foreign_keys_are_refused(plugin: str) -> None:
    with pytest.raises(grpc.RpcError, match="failed to get shared config profile, nobody"):
        Engine(plugin).configure(region=REGION, profile="nobody")
    with pytest.raises(grpc.RpcError, match="none of the sandbox's credentials"):
        Engine(plugin).configure(region=REGION, accessKey="AKIAIOSFODNN7EXAMPLE", secretKey="x")


def test_a_provider_without_a_region_is_refused(cloud: Cloud) -> None:
    with serving(AwsProvider(cloud.server.url)) as address, pytest.raises(grpc.RpcError, match="Missing region"):
        Engine(address).configure()


def test_an_endpoint_outside_is_refused(plugin: str) -> None:
    outside = json.dumps([{"ec2": "https://ec2.eu-central-1.amazonaws.com"}])
    with pytest.raises(CheckFailed, match="only talks to the sandbox, not to ec2 at https://ec2"):
        Engine(plugin).configure(region=REGION, endpoints=outside)
    inside = json.dumps([{"ec2": "http://127.0.0.1:1", "sts": "http://localhost:1"}])
    Engine(plugin).configure(region=REGION, endpoints=inside)


def test_an_unknown_setting_leaves_a_preview_possible(plugin: str) -> None:
    engine = Engine(plugin).configure(region=UNKNOWN)
    assert engine.preview(VPC, "vpc", cidrBlock="10.0.0.0/16")["arn"] == UNKNOWN
    with pytest.raises(grpc.RpcError, match="configuration is not known yet"):
        engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16")


def test_each_connection_has_its_own_configuration(plugin: str) -> None:
    """Requests name no provider; two providers of one program are told apart by their connections."""
    engines = []
    for profile in ("hospital-a", "hospital-b"):
        engine = Engine(plugin)
        engine.channel.close()
        engine.channel = grpc.insecure_channel(plugin, options=[("grpc.use_local_subchannel_pool", 1)])
        engine.stub = type(engine.stub)(engine.channel)
        engines.append(engine.configure(region=REGION, profile=profile))
    assert [identity(engine) for engine in engines] == ["111111111111", "222222222222"]
    engines[0].cancel()
    engines[1].create(VPC, "vpc", cidrBlock="10.0.0.0/16")
    engines[1].destroy()


# -- tags and regions --------------------------------------------------------------------------------------------
def tagged(cloud: Cloud, account: Account, **tags: str) -> tuple[Any, Engine]:
    context = serving(AwsProvider(cloud.server.url))
    key = credentials(account.id).access_key
    engine = Engine(context.__enter__())
    return context, engine.configure(region=REGION, accessKey=key, defaultTags=json.dumps({"tags": tags}))


def test_default_tags_are_on_everything_and_not_a_resources_own(cloud: Cloud, account: Account) -> None:
    context, engine = tagged(cloud, account, project="digits", owner="ana")
    try:
        made = participant(engine)
        for item in account.inventory():
            assert item.tags["project"] == "digits", item
        assert made["vpc"][0]["tags"] == {"Name": "v"}
        assert made["vpc"][0]["tagsAll"] == {"Name": "v", "owner": "ana", "project": "digits"}
        rule = account.ec2.describe_security_group_rules(
            Filters=[{"Name": "security-group-rule-id", "Values": [made["ssh"][0].id]}]
        )["SecurityGroupRules"][0]
        assert {"Key": "project", "Value": "digits"} in rule["Tags"]
        for name, (resource, inputs) in made.items():
            live = engine.read(resource)
            assert live is not None
            assert live.inputs == resource.inputs, name
            assert engine.diff(live, **inputs)[0] == {}, name
        engine.destroy()
    finally:
        context.__exit__(None, None, None)


def test_a_changed_default_tag_updates_what_is_there(cloud: Cloud, account: Account) -> None:
    context, engine = tagged(cloud, account, project="digits", owner="ana")
    try:
        vpc = engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16", tags={"Name": "v"})
        tags = json.dumps({"tags": {"project": "letters"}})
        engine.configure(region=REGION, accessKey=credentials(account.id).access_key, defaultTags=tags)
        changed, _ = engine.diff(vpc, cidrBlock="10.0.0.0/16", tags={"Name": "v"})
        assert changed == {"tagsAll.owner": "delete", "tagsAll.project": "update"}
        engine.update(vpc, cidrBlock="10.0.0.0/16", tags={"Name": "v"})
        assert [dict(item.tags) for item in account.inventory()] == [{"Name": "v", "project": "letters"}]
    finally:
        context.__exit__(None, None, None)


def test_a_key_pairs_tags_change(engine: Engine, account: Account) -> None:
    made = participant(engine)
    key, inputs = made["key"]
    engine.update(key, **inputs, tags={"Name": "the key"})
    assert [item.name for item in account.inventory() if item.kind == "ec2:key-pair"] == ["the key"]
    engine.update(key, **inputs)
    assert key["tagsAll"] == {}


def test_a_resource_in_a_region_of_its_own(engine: Engine, account: Account) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16", region="eu-west-1")
    assert vpc["region"] == "eu-west-1"
    assert [item.region for item in account.inventory()] == ["eu-west-1"]
    changed, answer = engine.diff(vpc, cidrBlock="10.0.0.0/16")
    assert changed == {"region": "update-replace"} or changed == {"region": "delete-replace"}
    assert list(answer.replaces) == ["region"]
    assert engine.read(vpc) is not None
    engine.delete(vpc)
    assert account.inventory() == []


def test_a_provider_moved_to_another_region_replaces(engine: Engine, account: Account) -> None:
    vpc = engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16")
    engine.configure(region="eu-west-1", accessKey=credentials(account.id).access_key)
    changed, _ = engine.diff(vpc, cidrBlock="10.0.0.0/16")
    assert changed == {"region": "update-replace"}
    engine.delete(vpc)  # by the region in its state
    assert account.inventory() == []


# -- faults, cancelling, time-outs -------------------------------------------------------------------------------
def test_a_delay_is_waited_after_the_thing_is_there(
    engine: Engine, account: Account, fault: Callable[..., None]
) -> None:
    fault(delays={"ec2:vpc": 3.0})
    started = time.monotonic()
    thread = threading.Thread(target=lambda: engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16"))
    thread.start()
    while not account.inventory():
        time.sleep(0.01)
    assert thread.is_alive()  # the cloud has it, the engine does not know yet: a crash now leaves an orphan
    thread.join(60)
    assert time.monotonic() - started >= 3.0


def test_cancel_ends_a_wait_and_what_was_made_is_kept(
    engine: Engine, account: Account, fault: Callable[..., None]
) -> None:
    fault(delays={"ec2:vpc": 600})
    seen: list[BaseException] = []

    def create() -> None:
        try:
            engine.create(VPC, "vpc", cidrBlock="10.0.0.0/16")
        except InitFailed as error:
            seen.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    deadline = time.monotonic() + 60
    while not account.inventory() and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.cancel()
    thread.join(60)
    assert not thread.is_alive()
    (error,) = seen
    assert isinstance(error, InitFailed)
    assert error.detail.id == account.inventory()[0].id
    assert str(error) == f"waiting for EC2 VPC ({error.detail.id}) create: context canceled"
    fault()
    engine.configure(region=REGION, accessKey=credentials(account.id).access_key)  # the next command
    vpc = Resource(VPC, "vpc", error.detail.id, {"cidrBlock": "10.0.0.0/16"}, {"region": REGION})
    engine.update(vpc, cidrBlock="10.0.0.0/16")
    engine.delete(vpc)


def test_a_time_out_is_an_error_that_keeps_the_resource(engine: Engine, fault: Callable[..., None]) -> None:
    fault(delays={"aws:ec2/vpc:Vpc": 600})
    with pytest.raises(InitFailed, match=r"timeout: not done after 0\.3 s"):
        engine.create(VPC, "vpc", timeout=0.3, cidrBlock="10.0.0.0/16")


def test_a_fault_with_a_message_makes_nothing(engine: Engine, account: Account, fault: Callable[..., None]) -> None:
    fault(fail={"ec2:internet-gateway": "the gateway is on strike"})
    with pytest.raises(grpc.RpcError, match=r"creating EC2 Internet Gateway \(gw\): the gateway is on strike"):
        engine.create(GATEWAY, "gw")
    assert account.inventory() == []


def test_what_is_not_emulated_is_named(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError, match="does not emulate resources of type aws:s3/bucket:Bucket"):
        engine.create("aws:s3/bucket:Bucket", "bucket")
    with pytest.raises(grpc.RpcError, match="does not emulate the function aws:ec2/getVpc:getVpc"):
        engine.invoke("aws:ec2/getVpc:getVpc")


def test_a_bug_is_one_line_and_no_traceback(engine: Engine, account: Account) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        engine.create(ROUTE, "route", routeTableId="rtb-1")
    assert "one of destinationCidrBlock" in caught.value.details()  # type: ignore[attr-defined]
    assert "Traceback" not in caught.value.details()  # type: ignore[attr-defined]


def test_each_attempt_has_a_client_token_of_its_own(engine: Engine, account: Account) -> None:
    made = participant(engine)
    eni, inputs = made["interface"]
    second = engine.create(eni.type, "interface", **inputs)
    assert second.id != eni.id


# -- functions ---------------------------------------------------------------------------------------------------
def test_functions(engine: Engine, account: Account) -> None:
    ami = engine.invoke("aws:ssm/getParameter:getParameter", name=UBUNTU)
    assert plain(ami["value"]) == ami["insecureValue"] == account.image()
    assert ami["value"] == secret(account.image())
    newest = engine.invoke(
        "aws:ec2/getAmi:getAmi",
        owners=["099720109477"],
        mostRecent=True,
        filters=[{"name": "name", "values": ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]}],
    )
    assert newest["id"] == ami["insecureValue"]
    assert newest["architecture"] == "x86_64"
    with pytest.raises(grpc.RpcError, match="returned more than one result"):
        engine.invoke("aws:ec2/getAmi:getAmi", owners=["099720109477"])
    with pytest.raises(grpc.RpcError, match="returned no results"):
        engine.invoke("aws:ec2/getAmi:getAmi", owners=["123456789012"])
    zones = engine.invoke("aws:index/getAvailabilityZones:getAvailabilityZones", state="available")
    assert zones["names"] == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    offers = engine.invoke(
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings",
        locationType="availability-zone",
        filters=[{"name": "instance-type", "values": ["g4dn.xlarge"]}],
    )
    assert offers["locations"] == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    kind = engine.invoke("aws:ec2/getInstanceType:getInstanceType", instanceType="g4dn.xlarge")
    assert (kind["gpuses"][0]["name"], kind["gpuses"][0]["count"]) == ("T4", 1)
    region = engine.invoke("aws:index/getRegion:getRegion")
    assert (region["region"], region["description"]) == ("eu-central-1", "Europe (Frankfurt)")
    assert engine.invoke("aws:index/getPartition:getPartition")["partition"] == "aws"
    with pytest.raises(grpc.RpcError, match="ParameterNotFound"):
        engine.invoke("aws:ssm/getParameter:getParameter", name="/nothing")
    assert MACHINE in AwsProvider(account.cloud.server.url).resources


def test_settings_that_would_be_ignored_are_refused(plugin: str) -> None:
    roles = json.dumps([{"roleArn": "arn:aws:iam::123456789012:role/x"}])
    with pytest.raises(CheckFailed, match="does not emulate the provider's assumeRoles"):
        Engine(plugin).configure(region=REGION, assumeRoles=roles)
