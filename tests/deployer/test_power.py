"""The power switch of a machine in a cloud: what the cloud refuses, or no longer knows, is told as ours."""

from __future__ import annotations

from typing import Any, cast

import boto3
import pytest
from azure.core.exceptions import ResourceNotFoundError
from botocore.stub import Stubber

from deployer.errors import CloudError, RefusedError
from deployer.power import AwsPower, AzurePower

VM = "i-0123456789abcdef0"


class Ec2:
    """EC2's real client; what it is answered is given."""

    def __init__(self) -> None:
        self.client = boto3.client("ec2", "eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        self.stub = Stubber(self.client)
        self.stub.activate()

    def ec2(self, region: str) -> Any:
        return self.client

    def describes(self, *states: str, **more: str) -> None:
        for state in states:
            instance = {"InstanceId": VM, "State": {"Name": state}, **more}
            self.stub.add_response("describe_instances", {"Reservations": [{"Instances": [instance]}]})


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


def power(ec2: Ec2) -> AwsPower:
    return AwsPower(cast(Any, ec2), "eu-central-1", "site-1")


def test_a_machine_is_looked_at_once_before_it_is_stopped(ec2: Ec2) -> None:
    ec2.describes("running")
    ec2.stub.add_client_error("stop_instances", "IncorrectInstanceState", "not now")
    with pytest.raises(CloudError, match=r"EC2 was not obeyed: .*not now") as caught:
        power(ec2).stop(VM)
    assert caught.value.participant == "site-1"
    ec2.stub.assert_no_pending_responses()


def test_a_spot_machine_can_not_be_stopped_and_what_can_be_done_is_told(ec2: Ec2) -> None:
    ec2.describes("running", InstanceLifecycle="spot")
    with pytest.raises(RefusedError, match="a spot machine can't be stopped"):
        power(ec2).stop(VM)


def test_a_machine_that_is_still_stopping_is_turned_on_when_it_has_stopped(ec2: Ec2) -> None:
    ec2.describes("stopping", "stopping", "stopped")
    ec2.stub.add_response("start_instances", {}, {"InstanceIds": [VM]})
    ec2.describes("pending", "running")
    power(ec2).start(VM)
    ec2.stub.assert_no_pending_responses()


def test_a_machine_that_runs_is_left_alone(ec2: Ec2) -> None:
    ec2.describes("running")
    power(ec2).start(VM)
    ec2.stub.assert_no_pending_responses()


@pytest.mark.parametrize("verb", ["stop", "start"])
@pytest.mark.parametrize("code", ["InvalidInstanceID.NotFound", "terminated"])
def test_a_machine_that_is_gone_is_neither_stopped_nor_started(ec2: Ec2, verb: str, code: str) -> None:
    if code == "terminated":
        ec2.describes(code, InstanceLifecycle="spot")
    else:
        ec2.stub.add_client_error("describe_instances", code)
    with pytest.raises(CloudError, match="the machine is gone") as caught:
        getattr(power(ec2), verb)(VM)
    assert caught.value.next_step == "fedspan up site-1 --refresh"


def test_the_same_of_azure() -> None:
    class World:
        machines: Any

        def instance_view(self, group: str, name: str) -> None:
            assert (group, name) == ("digits-site-1-rg", "digits-site-1-vm")
            raise ResourceNotFoundError("gone")

        def begin_start(self, *place: str) -> None:
            raise AssertionError("nothing is there to start")

        begin_deallocate = begin_start

    world = World()
    world.machines = world
    vm = "/subscriptions/1/resourceGroups/digits-site-1-rg/providers/Microsoft.Compute/virtualMachines/digits-site-1-vm"
    for verb in ("stop", "start"):
        with pytest.raises(CloudError, match="the machine is gone"):
            getattr(AzurePower(cast(Any, world), "site-1"), verb)(vm)
