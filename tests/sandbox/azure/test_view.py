"""What the machines' driver is told: who may log in, who may come in, what is attached; and what exists at all."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from waiting import PATIENCE_S

from deployer.sandbox.azure import arm_server
from deployer.sandbox.azure.schedules import Clock
from deployer.sandbox.model import MachineSpec, machine_from_json, machine_to_json

from .arm_kit import PUBLIC_KEY, REGION, RULE, USER_DATA, Azure


def spec(azure: Azure) -> MachineSpec:
    found = [machine for machine in azure.server.machines() if machine.account == azure.subscription]
    assert len(found) == 1
    return found[0]


def ingress(azure: Azure) -> list[tuple[int, int, str]]:
    return [(rule.port_from, rule.port_to, rule.cidr) for rule in spec(azure).ingress]


def rules(*given: dict[str, Any]) -> dict[str, Any]:
    made = [
        {"name": f"r{number}", "properties": {**RULE, "priority": 100 + number, **rule}}
        for number, rule in enumerate(given)
    ]
    return {"securityRules": made}


def test_a_machine_is_described_with_login_user_data_addresses_volumes_and_tags(azure: Azure) -> None:
    nic = azure.network_for_vm()
    one, two = azure.disk("one"), azure.disk("two")
    disks = [
        {"lun": 3, "createOption": "Attach", "managedDisk": {"id": one.id}},
        {"lun": 1, "createOption": "Attach", "managedDisk": {"id": two.id}},
    ]
    vm = azure.vm(nic, properties={"storageProfile": {"dataDisks": disks}})
    found = spec(azure)
    assert found.id == f"{vm.id}#{vm.vm_id}"
    assert (found.cloud, found.account, found.region, found.zone) == ("azure", azure.subscription, REGION, None)
    assert (found.size, found.running, found.user_data) == ("Standard_D2s_v5", True, USER_DATA)
    assert found.login_keys == (("fedspan", PUBLIC_KEY),)
    assert found.public_ip == azure.network.public_ip_addresses.get("rg", "ip").ip_address
    assert found.private_ip == "10.0.0.4"
    assert found.volumes == ((two.id, "lun1"), (one.id, "lun3"))
    assert found.participant == "site-1"
    assert machine_from_json(machine_to_json(found)) == found
    held = {item.id for item in azure.server.inventory()}
    assert {volume for volume, _ in found.volumes} <= held


def test_a_replaced_machine_is_another_one_at_the_same_address(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.vm(nic)
    before = spec(azure)
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    azure.vm(nic)
    after = spec(azure)
    assert after.id != before.id
    assert (after.public_ip, after.private_ip) == (before.public_ip, before.private_ip)


def test_without_a_security_group_nobody_comes_in(azure: Azure) -> None:
    azure.vm(azure.network_for_vm())
    assert ingress(azure) == []


def _guarded(azure: Azure, **properties: Any) -> None:
    azure.group()
    azure.vnet()
    group = azure.nsg(properties=properties)
    azure.vm(azure.nic(azure.subnet(), azure.address(), properties={"networkSecurityGroup": {"id": group.id}}))


EVERY = "0.0.0.0/0"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{}], [(22, 22, "198.51.100.10/32")]),
        ([{"sourceAddressPrefix": "*"}], [(22, 22, EVERY)]),
        ([{"sourceAddressPrefix": "Internet", "destinationPortRange": "*"}], [(0, 65535, EVERY)]),
        ([{"direction": "Outbound"}], []),
        ([{"protocol": "Udp"}], []),
        ([{"protocol": "*", "destinationPortRange": "80-90"}], [(80, 90, "198.51.100.10/32")]),
        (
            [{"destinationPortRange": None, "destinationPortRanges": ["22", "8002"]}],
            [(22, 22, "198.51.100.10/32"), (8002, 8002, "198.51.100.10/32")],
        ),
        (
            [{"sourceAddressPrefix": None, "sourceAddressPrefixes": ["203.0.113.0/25", "203.0.113.128/25"]}],
            [(22, 22, "203.0.113.0/24")],
        ),
        ([{"access": "Deny", "sourceAddressPrefix": "*"}, {}], []),
        ([{}, {"access": "Deny", "sourceAddressPrefix": "*"}], [(22, 22, "198.51.100.10/32")]),
        (
            [{"access": "Deny", "sourceAddressPrefix": "10.0.0.0/25"}, {"sourceAddressPrefix": "10.0.0.0/24"}],
            [(22, 22, "10.0.0.128/25")],
        ),
        (
            [
                {"access": "Deny", "destinationPortRange": "85", "sourceAddressPrefix": "*"},
                {"destinationPortRange": "80-90", "sourceAddressPrefix": "1.0.0.0/8"},
            ],
            [(80, 84, "1.0.0.0/8"), (86, 90, "1.0.0.0/8")],
        ),
        ([{"sourceAddressPrefix": "VirtualNetwork"}], []),
    ],
)
def test_rules_are_resolved_by_priority_and_denies_are_respected(
    azure: Azure, given: list[dict[str, Any]], expected: list[tuple[int, int, str]]
) -> None:
    _guarded(azure, **rules(*given))
    assert ingress(azure) == expected


def test_two_groups_must_both_allow(azure: Azure) -> None:
    azure.group()
    azure.vnet()
    outer = azure.nsg(
        "outer", properties=rules({"sourceAddressPrefix": "198.51.100.0/24", "destinationPortRange": "*"})
    )
    inner = azure.nsg("inner", properties=rules({"sourceAddressPrefix": "*"}, {"destinationPortRange": "8002"}))
    subnet = azure.subnet(networkSecurityGroup={"id": outer.id})
    azure.vm(azure.nic(subnet, azure.address(), properties={"networkSecurityGroup": {"id": inner.id}}))
    assert ingress(azure) == [(22, 22, "198.51.100.0/24"), (8002, 8002, "198.51.100.10/32")]


def test_stopped_and_deallocated_machines_do_not_run_and_keep_their_disks(azure: Azure) -> None:
    azure.vm(azure.network_for_vm())
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    assert spec(azure).running is False
    assert azure.kinds()["disks"] == 1


def test_a_machine_that_powers_itself_off_is_stopped_but_not_the_one_in_its_place(azure: Azure) -> None:
    nic = azure.network_for_vm()
    vm = azure.vm(nic)
    azure.server.powered_off(vm.id, "of-the-machine-before")
    assert spec(azure).running
    azure.server.powered_off(vm.id, vm.vm_id)
    assert not spec(azure).running
    view = azure.compute.virtual_machines.instance_view("rg", "vm")
    assert "PowerState/stopped" in [status.code for status in view.statuses], "billed on"


def test_one_failure_is_not_the_end_of_the_daily_shutdowns(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    again = threading.Event()

    def tick(clock: Clock, cloud: Any) -> None:
        looks.append(1)
        if len(looks) == 1:
            raise KeyError("targetResourceId")
        again.set()

    monkeypatch.setattr(Clock, "tick", tick)
    monkeypatch.setattr(arm_server, "_SCHEDULES_S", 0.01)
    with arm_server.ArmServer():
        assert again.wait(PATIENCE_S)


def test_changes_are_announced_after_they_can_be_seen(azure: Azure) -> None:
    seen: list[int] = []
    azure.server.cloud.on_change, old = lambda: seen.append(len(azure.kinds())), azure.server.cloud.on_change
    try:
        azure.group()
        azure.vnet()
        azure.resources.resource_groups.get("rg")
    finally:
        azure.server.cloud.on_change = old
    assert seen == [1, 2]
