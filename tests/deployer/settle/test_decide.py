"""Decisions about operations that did not end: each situation in, the decision out; no cloud is needed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from deployer.settle.decide import decide
from deployer.settle.model import Found
from deployer.settle.state import edited, orphans, state_key

URN = "urn:pulumi:site-1::fedspan-digits::fedspan:stacks:AwsParticipant${type}::site-1-{kind}"
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=timezone.utc)
RG = "/subscriptions/s/resourceGroups/digits-site-1-rg"


def urn(type_: str, kind: str) -> str:
    return URN.format(type=type_, kind=kind)


def entry(type_: str, kind: str, known: str, **more: Any) -> dict[str, Any]:
    return {"urn": urn(type_, kind), "type": type_, "custom": True, "id": known, **more}


def found(type_: str, kind: str, known: str, **more: Any) -> Found:
    cloud = "azure" if type_.startswith("azure") else "aws"
    return Found(cloud, type_, known, f"site-1-{kind}", "eu-central-1", **more)


def pending(kind: str, resource: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "resource": resource}


VPC, VM, VOLUME = "aws:ec2/vpc:Vpc", "aws:ec2/instance:Instance", "aws:ebs/volume:Volume"
GROUP, NIC, DISK = (
    "azure-native:resources:ResourceGroup",
    "azure-native:network:NetworkInterface",
    "azure-native:compute:Disk",
)


def test_when_cloud_and_state_agree_there_is_nothing_to_do() -> None:
    state = {"resources": [entry(VPC, "vpc", "vpc-1")]}
    assert decide([found(VPC, "vpc", "vpc-1")], state, participant="site-1").empty


def test_what_a_killed_create_made_is_deleted() -> None:
    orphan = found(VM, "vm", "i-2")
    state = {
        "resources": [entry(VPC, "vpc", "vpc-1")],
        "pending_operations": [pending("creating", entry(VM, "vm", ""))],
    }
    decision = decide([found(VPC, "vpc", "vpc-1"), orphan], state, participant="site-1")
    assert decision.delete == (orphan,)
    assert decision.drop == ()
    assert not decision.refresh
    assert decision.interrupted == ("creating site-1-vm",)


def test_what_a_dead_provider_made_is_deleted_although_nothing_is_pending() -> None:
    orphan = found(VM, "vm", "i-2")
    assert decide([orphan], {"resources": []}, participant="site-1").delete == (orphan,)


def test_both_of_two_that_a_forgetful_engine_made_but_one_are_kept() -> None:
    known, orphan = found(VM, "vm", "i-1"), found(VM, "vm", "i-2")
    decision = decide([known, orphan], {"resources": [entry(VM, "vm", "i-1")]}, participant="site-1")
    assert decision.delete == (orphan,)


def test_an_interrupted_delete_is_finished_and_leaves_the_state() -> None:
    resource = entry(VM, "vm", "i-1")
    state = {"resources": [resource], "pending_operations": [pending("deleting", resource)]}
    decision = decide([found(VM, "vm", "i-1")], state, participant="site-1")
    assert [thing.id for thing in decision.delete] == ["i-1"]
    assert decision.drop == ((resource["urn"], "i-1"),)


def test_a_delete_that_had_finished_only_leaves_the_state() -> None:
    resource = entry(VM, "vm", "i-1")
    state = {"resources": [resource], "pending_operations": [pending("deleting", resource)]}
    decision = decide([], state, participant="site-1")
    assert decision.delete == ()
    assert decision.drop == ((resource["urn"], "i-1"),)


def test_an_interrupted_update_asks_for_a_refresh_and_deletes_nothing() -> None:
    resource = entry(VM, "vm", "i-1")
    state = {"resources": [resource], "pending_operations": [pending("updating", resource)]}
    decision = decide([found(VM, "vm", "i-1")], state, participant="site-1")
    assert (decision.delete, decision.drop, decision.refresh) == ((), (), True)


def test_a_machine_that_waits_for_its_deletion_is_no_orphan() -> None:
    old = entry(VM, "vm", "i-1", delete=True)
    decision = decide([found(VM, "vm", "i-1")], {"resources": [old]}, participant="site-1")
    assert decision.delete == ()


def test_on_azure_a_new_machine_has_the_old_one_s_id_and_is_an_orphan_all_the_same() -> None:
    # Its old entry stays in the state, marked as deleted for a replacement, until the new one is written down.
    kind, known = "azure-native:compute:VirtualMachine", f"{RG}/providers/Microsoft.Compute/virtualMachines/vm"
    old = entry(kind, "vm", known, pendingReplacement=True)
    state = {"resources": [old], "pending_operations": [pending("creating", entry(kind, "vm", ""))]}
    new = found(kind, "vm", known)
    assert decide([new], state, participant="site-1").delete == (new,)


def test_what_goes_with_something_that_exists_is_no_orphan() -> None:
    vm = found("azure-native:compute:VirtualMachine", "vm", f"{RG}/providers/Microsoft.Compute/virtualMachines/vm")
    os_disk = found(DISK, "", f"{RG}/providers/Microsoft.Compute/disks/os", goes_with=vm.id.upper())
    state = {"resources": [entry(vm.type, "vm", vm.id)]}
    assert orphans([vm, os_disk], state) == ()
    assert orphans([os_disk], {"resources": []}) == (os_disk,)


def test_azure_ids_are_the_same_in_any_case() -> None:
    state = {"resources": [entry(NIC, "nic", f"{RG}/providers/Microsoft.Network/networkInterfaces/n".upper())]}
    there = [found(NIC, "nic", f"{RG}/providers/Microsoft.Network/networkInterfaces/n")]
    assert orphans(there, state) == ()


def test_routes_and_attachments_are_told_by_what_they_join() -> None:
    route = entry("aws:ec2/route:Route", "default-route", "r-rtb-11080289494")
    route["inputs"] = {"routeTableId": "rtb-1", "destinationCidrBlock": "0.0.0.0/0"}
    assert state_key(route) == ("aws:ec2/route:Route", "rtb-1_0.0.0.0/0")
    attachment = entry("aws:ec2/volumeAttachment:VolumeAttachment", "state-attachment", "vai-1")
    attachment["outputs"] = {"deviceName": "/dev/sdf", "volumeId": "vol-1", "instanceId": "i-1"}
    assert state_key(attachment)[1] == "/dev/sdf:vol-1:i-1"


# --- the state volume ---


def volume(**more: Any) -> Found:
    return found(VOLUME, "state", "vol-9", **more)


def test_a_state_volume_that_a_killed_create_made_is_deleted() -> None:
    state = {"pending_operations": [pending("creating", entry(VOLUME, "state", ""))]}
    decision = decide([volume(created=NOW)], state, participant="site-1")
    assert (len(decision.delete), decision.doubtful) == (1, ())


def test_a_state_volume_whose_create_failed_is_deleted() -> None:
    decision = decide([volume()], {}, participant="site-1", failed=[urn(VOLUME, "state")])
    assert decision.doubtful == ()


@pytest.mark.parametrize("state", [None, {}, {"resources": []}, {"resources": [entry(VPC, "vpc", "vpc-1")]}])
def test_a_state_volume_that_nothing_explains_is_a_doubt(state: dict[str, Any] | None) -> None:
    decision = decide([volume(created=NOW)], state, participant="site-1")
    assert [thing.id for thing in decision.doubtful] == ["vol-9"]


def test_its_age_tells_whether_the_interrupted_operation_made_it() -> None:
    def doubtful(created: datetime) -> bool:
        return bool(decide([volume(created=created)], {}, participant="site-1", since=NOW).doubtful)

    assert not doubtful(NOW + timedelta(seconds=30))
    assert not doubtful(NOW - timedelta(minutes=1))  # clocks differ
    assert doubtful(NOW - timedelta(days=40))


def test_a_whole_resource_group_that_the_state_does_not_know_is_a_doubt_if_it_holds_a_state_disk() -> None:
    group = found(GROUP, "rg", RG)
    disk = found(DISK, "state", f"{RG}/providers/Microsoft.Compute/disks/state", created=NOW)
    assert decide([group, disk], {}, participant="site-1").doubtful == (disk,)
    assert decide([group], {}, participant="site-1").doubtful == ()


def test_a_resource_group_whose_deletion_was_interrupted_is_deleted_with_its_disk() -> None:
    # The engine had forgotten what lies in the group before it began to delete the group.
    group = entry(GROUP, "rg", RG)
    things = [found(GROUP, "rg", RG), found(DISK, "state", f"{RG}/providers/Microsoft.Compute/disks/state")]
    state = {"resources": [group], "pending_operations": [pending("deleting", group)]}
    decision = decide(things, state, participant="site-1")
    assert len(decision.delete) == 2
    assert decision.doubtful == ()
    assert decision.drop == ((group["urn"], RG),)


# --- editing the state ---


def test_editing_clears_the_pending_operations_and_changes_nothing_of_the_original() -> None:
    state = {
        "manifest": {"time": "x"},
        "resources": [entry(VPC, "vpc", "vpc-1")],
        "pending_operations": [{"type": "x"}],
    }
    result, held = edited(state, [])
    assert "pending_operations" not in result
    assert result["resources"] == state["resources"]
    assert result["manifest"] == {"time": "x"}
    assert held == ()
    assert state["pending_operations"]


def test_an_entry_leaves_with_what_was_deleted_with_it() -> None:
    group = entry(GROUP, "rg", RG)
    nic = entry(NIC, "nic", "nic", deletedWith=group["urn"], dependencies=[group["urn"]])
    other = entry(VPC, "vpc", "vpc-1")
    result, held = edited({"resources": [group, nic, other]}, [(group["urn"], RG)])
    assert result["resources"] == [other]
    assert held == ()


def test_an_entry_leaves_with_what_only_waits_for_its_own_deletion() -> None:
    vm = entry(VM, "vm", "i-1")
    attachment = entry("aws:ec2/volumeAttachment:VolumeAttachment", "state-attachment", "vai-1")
    attachment |= {"dependencies": [vm["urn"]], "pendingReplacement": True}
    result, held = edited({"resources": [vm, attachment]}, [(vm["urn"], "i-1")])
    assert (result["resources"], held) == ([], ())


def test_an_entry_on_which_something_living_depends_stays_and_needs_a_refresh() -> None:
    vm = entry(VM, "vm", "i-1")
    dependent = entry(VOLUME, "state", "vol-1", propertyDependencies={"x": [vm["urn"]]})
    result, held = edited({"resources": [vm, dependent]}, [(vm["urn"], "i-1")])
    assert len(result["resources"]) == 2
    assert held == (vm["urn"],)


def test_of_an_old_and_a_new_entry_of_one_name_only_the_deleted_one_leaves() -> None:
    new, old = entry(VM, "vm", "i-2"), entry(VM, "vm", "i-1", delete=True)
    dependent = entry(VOLUME, "state", "vol-1", dependencies=[new["urn"]])
    result, held = edited({"resources": [new, dependent, old]}, [(old["urn"], "i-1")])
    assert (result["resources"], held) == ([new, dependent], ())
