"""What an engine says becomes steps, and nothing is done that nobody was shown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from deployer.checkpoint import tells_its_machine
from deployer.engine import check_agreed
from deployer.engine_events import Collector, merged, short_type, step_of
from deployer.errors import RefusedError
from tests.deployer.decision_samples import URN, VM, step


def test_outputs_are_of_the_machine_that_the_stack_holds_or_made_again() -> None:
    def tells(*resources: dict[str, object]) -> bool:
        return tells_its_machine({"resources": resources}, "ubuntu-24.04")

    told: dict[str, object] = {"public_ip": "192.0.2.7", "vm_id": "i-1", "image": "ubuntu-24.04"}
    stack = {"type": "pulumi:pulumi:Stack", "outputs": told}
    machine = {"type": VM, "custom": True, "id": "i-1"}
    assert tells(stack, machine)
    assert not tells({**stack, "outputs": {"public_ip": "192.0.2.7"}}, machine)  # made, and cut off then
    assert not tells(stack, {**machine, "id": "i-2"})  # replaced, and cut off then
    assert not tells({**stack, "outputs": {**told, "image": "dlami-ubuntu-22.04"}}, machine)
    time = {"dailyRecurrence": {"time": "0501"}}
    shutdown = {"type": "azure-native:devtestlab:GlobalSchedule", "custom": True, "id": "s", "inputs": time}
    armed = {**stack, "outputs": {**told, "deallocate_at": "0501"}}
    assert tells(armed, machine, shutdown)
    assert not tells(stack, machine, shutdown)  # armed, and cut off then
    assert not tells(armed, machine)  # deleted, and cut off then
    role = {"type": "azure-native:authorization:RoleAssignment", "custom": True, "id": "r"}
    able = {**stack, "outputs": {**told, "self_deallocate": True}}
    assert tells(able, machine, role)
    assert not tells(stack, machine, role)
    assert not tells(able, machine)


def event(op: str, type_: str = VM, **more: object) -> SimpleNamespace:
    return SimpleNamespace(op=op, type=type_, urn=URN, detailed_diff=None, diffs=None, **more)


def test_what_changes_nothing_is_no_step() -> None:
    assert step_of(event("same")) is None
    assert step_of(event("read")) is None
    assert step_of(event("create", "pulumi:providers:aws")) is None
    assert step_of(event("create", "fedspan:aws:Participant")) is None


def test_a_replacement_is_one_step_with_its_reasons() -> None:
    told = [step("delete"), replace(step("replace"), reasons=("userData",)), step("create")]
    found = merged([told[1], told[0]])
    assert [(entry.action, entry.reasons) for entry in found] == [("replace", ("userData",))]


def test_types_are_told_shortly() -> None:
    assert short_type(VM) == "ec2.Instance"
    assert short_type("azure-native:network:Subnet") == "network.Subnet"


def test_colours_and_the_closing_line_are_not_causes() -> None:
    collector = Collector()
    for message in ("<{%reset%}>no capacity<{%reset%}>\n", "update failed\n"):
        diagnostic = SimpleNamespace(message=message, severity="error", urn=URN)
        collector(
            SimpleNamespace(
                resource_pre_event=None, res_outputs_event=None, res_op_failed_event=None, diagnostic_event=diagnostic
            )
        )
    assert [entry.message for entry in collector.diagnostics] == ["no capacity"]
    assert collector.diagnostics[0].title == "ec2.Instance site-1-vm"


def test_deletes_that_nobody_was_shown_are_refused() -> None:
    check_agreed("site-1", [step("delete")], [step("delete")])
    check_agreed("site-1", [step("create"), step("update")], [])
    with pytest.raises(RefusedError, match=r"delete ec2\.Instance site-1-vm"):
        check_agreed("site-1", [step("delete")], [step("update")])
    with pytest.raises(RefusedError):
        check_agreed("site-1", [step("replace")], [step("delete")])
