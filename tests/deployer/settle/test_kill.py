"""kill -9 in the middle of an operation, on both emulated clouds: afterwards they hold exactly one of each.

The engine alone would make the interrupted resource a second time and forget the first.
"""

from __future__ import annotations

from typing import Any

import pytest

from deployer.checkpoint import ROLE, principal_in, stack_outputs
from deployer.errors import RefusedError
from deployer.settle import Whose, find_all, settle

INSTANCE, MACHINE = "aws:ec2/instance:Instance", "azure-native:compute:VirtualMachine"
slow = pytest.mark.slow
pytestmark = pytest.mark.timeout(280)

CREATES = [
    pytest.param("aws", INSTANCE, id="aws machine"),
    pytest.param("aws", "aws:ec2/eip:Eip", id="aws address", marks=slow),
    pytest.param("aws", "ec2:vpc", id="aws first resource", marks=slow),
    pytest.param("aws", "aws:ec2/keyPair:KeyPair", id="aws key", marks=slow),
    pytest.param("aws", "aws:ebs/volume:Volume", id="aws state volume", marks=slow),
    pytest.param("aws", "aws:ec2/volumeAttachment:VolumeAttachment", id="aws attachment", marks=slow),
    pytest.param("aws", "aws:ec2/route:Route", id="aws route", marks=slow),
    pytest.param("aws", "aws:ec2/routeTableAssociation:RouteTableAssociation", id="aws association", marks=slow),
    pytest.param("aws", "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", id="aws rule", marks=slow),
    pytest.param("azure", "Microsoft.Compute/virtualMachines", id="azure machine", marks=slow),
    pytest.param("azure", "Microsoft.Resources/resourceGroups", id="azure resource group", marks=slow),
    pytest.param("azure", "Microsoft.Compute/disks", id="azure state disk", marks=slow),
    pytest.param("azure", "Microsoft.Network/publicIPAddresses", id="azure address", marks=slow),
    pytest.param("azure", "Microsoft.Network/virtualNetworks/subnets", id="azure subnet", marks=slow),
    pytest.param("azure", "Microsoft.Network/networkInterfaces", id="azure interface", marks=slow),
]


@pytest.mark.parametrize(("cloud", "kind"), CREATES)
def test_a_create_that_was_killed(rig: Any, cloud: str, kind: str) -> None:
    one = rig(cloud)
    one.killed("up", kind, "creating")
    settled = one.settle()
    assert any("cleared the interrupted operation: creating" in action for action in settled.actions)
    one.work("up")
    one.check_exactly_one_of_each()
    one.work("destroy")
    assert one.found() == []


@slow
def test_what_deallocates_a_machine_is_found_and_made_again_when_its_create_was_killed(rig: Any) -> None:
    """`up` on a site's last day, once its machine is there: what is left has no tag that a list would be asked for."""
    one = rig("azure")
    one.work("up")
    one.change(expires="2026-11-30T05:00:00Z", deallocate_at="0500")
    one.killed("up", "Microsoft.DevTestLab/schedules", "creating")
    settled = one.settle()
    assert any(f"deleted GlobalSchedule {one.participant}-shutdown" in action for action in settled.actions)
    one.work("up")
    one.check_exactly_one_of_each()
    one.change(expires=None, deallocate_at=None)
    one.work("up")
    one.check_exactly_one_of_each()
    one.change(self_deallocate=True)
    one.work("up")
    # a role is made too quickly to kill anybody meanwhile: the state as it would be
    state = one.engine.state()
    (role,) = (entry for entry in state["resources"] if entry["type"] == ROLE)
    state["resources"].remove(role)
    state["pending_operations"] = [{"type": "creating", "resource": {**role, "id": "", "outputs": {}}}]
    one.engine.set_state(state)
    settled = one.settle()
    assert any(f"deleted RoleAssignment {one.participant}-deallocate-role" in action for action in settled.actions)
    one.work("up")
    one.check_exactly_one_of_each()
    (machine,) = (thing.id for thing in one.found() if thing.type == MACHINE)
    one.change(expires="2026-11-30T05:00:00Z", principal=principal_in(one.engine.state()))
    (step,) = one.engine.preview(one.program()).steps
    assert (step.action, step.name) == ("update", f"{one.participant}-vm")  # and no other role
    one.change(self_deallocate=False, drop_identity=True)
    one.work("up")
    one.check_exactly_one_of_each()
    assert [thing.id for thing in one.found() if thing.type == MACHINE] == [machine]
    one.work("destroy")
    assert one.found() == []


@pytest.mark.parametrize(
    ("cloud", "kind"),
    [
        pytest.param("aws", INSTANCE, id="aws machine"),
        pytest.param("azure", "Microsoft.Resources/resourceGroups", id="azure resource group"),
    ],
)
@slow
def test_a_destroy_that_was_killed(rig: Any, cloud: str, kind: str) -> None:
    one = rig(cloud)
    one.work("up")
    one.killed("destroy", kind, "deleting")
    one.settle()
    one.work("destroy")
    assert one.found() == []


@pytest.mark.parametrize(
    ("cloud", "kind"),
    [
        pytest.param("aws", INSTANCE, id="aws machine", marks=slow),
        pytest.param("azure", "Microsoft.Resources/resourceGroups", id="azure resource group", marks=slow),
    ],
)
def test_an_up_after_a_destroy_that_was_killed_makes_everything_again(rig: Any, cloud: str, kind: str) -> None:
    one = rig(cloud)
    one.work("up")
    one.killed("destroy", kind, "deleting")
    one.settle()
    one.work("up")
    one.check_exactly_one_of_each()


@pytest.mark.parametrize(
    ("cloud", "kind", "operation"),
    [
        pytest.param("aws", INSTANCE, "deleting", id="aws, old machine", marks=slow),
        pytest.param("aws", INSTANCE, "creating", id="aws, new machine", marks=slow),
        pytest.param("azure", "Microsoft.Compute/virtualMachines", "deleting", id="azure, old machine", marks=slow),
        pytest.param("azure", "Microsoft.Compute/virtualMachines", "creating", id="azure, new machine", marks=slow),
    ],
)
def test_a_replacement_that_was_killed_keeps_address_and_volume(
    rig: Any, cloud: str, kind: str, operation: str
) -> None:
    one = rig(cloud)
    one.work("up")
    before = {thing.name: thing.id for thing in one.found()}
    address = stack_outputs(one.engine.state())[0]["public_ip"]
    one.change(ssh_user="keeper")  # another user-data: another machine
    one.killed("up", kind, operation)
    one.settle()
    one.work("up")
    one.check_exactly_one_of_each()
    after = {thing.name: thing.id for thing in one.found()}
    changed = {name.removeprefix(f"{one.participant}-") for name in before if before[name] != after[name]}
    assert changed <= {"vm", "os-disk", "state-attachment"}
    assert stack_outputs(one.engine.state())[0]["public_ip"] == address
    assert stack_outputs(one.engine.state())[0]["ssh_user"] == "keeper"


@pytest.mark.parametrize(
    ("cloud", "kind", "size"),
    [
        pytest.param("aws", INSTANCE, "m7i.xlarge", id="aws", marks=slow),
        pytest.param("azure", "Microsoft.Compute/virtualMachines", "Standard_D8s_v5", id="azure", marks=slow),
    ],
)
def test_an_update_that_was_killed_is_made_again(rig: Any, cloud: str, kind: str, size: str) -> None:
    one = rig(cloud)
    one.work("up")
    one.change(size=size)
    one.killed("up", kind, "updating")
    assert one.settle().refresh
    one.work("up")
    one.check_exactly_one_of_each()
    assert stack_outputs(one.engine.state())[0]["size"] == size


@pytest.mark.parametrize("cloud", [pytest.param("aws", marks=slow), "azure"])
def test_addresses_that_no_state_knows_are_taken_back(rig: Any, cloud: str) -> None:
    # A first resource whose provider died, or whose state was lost before there was a volume.
    one = rig(cloud)
    one.work("address")
    settle(one.world, one.whose, None)
    assert one.found() == []


@slow
def test_a_create_whose_provider_died_leaves_no_trace_in_the_state_and_is_settled_too(rig: Any) -> None:
    one = rig("aws")
    one.killed("up", INSTANCE, "creating")
    one.engine.unlock()
    state = one.engine.state()
    del state["pending_operations"]  # what the engine's records say of a provider that died or a network that was lost
    one.engine.set_state(state)
    orphan = next(thing for thing in one.found() if thing.name.endswith("-vm"))
    settled = one.settle()
    assert settled.actions == (f"deleted {orphan.title}, left by an interrupted operation",)
    one.work("up")
    one.check_exactly_one_of_each()


@pytest.mark.parametrize("cloud", ["aws", pytest.param("azure", marks=slow)])
def test_a_healthy_stack_is_not_touched_and_a_lost_state_costs_no_data(rig: Any, cloud: str) -> None:
    one = rig(cloud)
    one.work("up")
    settled = one.settle()
    assert (settled.actions, settled.changed, settled.refresh) == ((), False, False)
    one.check_exactly_one_of_each()
    before = one.found()
    with pytest.raises(RefusedError, match="may hold this participant's data"):
        settle(one.world, one.whose, {"resources": []})
    assert one.found() == before


def test_another_deployment_s_resource_group_is_refused_and_not_touched(rig: Any) -> None:
    one = rig("azure")
    one.work("address")
    other = Whose("digits", "d2", one.participant)
    assert find_all(one.world, other) == []
    with pytest.raises(RefusedError, match="is not this deployment's") as caught:
        settle(one.world, other, None)
    assert "deployment d1" in str(caught.value)
    assert len(one.found()) == 6
