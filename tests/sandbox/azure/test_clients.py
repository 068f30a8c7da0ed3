"""Unmodified Azure SDK clients live with the emulator over TLS: all is made, changed, listed, run, removed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from .arm_kit import REGION, RULE, USER_DATA, Azure, refused, vm_body


def test_a_participant_is_made_shown_and_deleted_with_its_group(azure: Azure) -> None:
    azure.group()
    azure.vnet()
    nsg = azure.nsg()
    azure.rule()
    subnet = azure.subnet(networkSecurityGroup={"id": nsg.id})
    address = azure.address()
    nic = azure.nic(subnet, address, properties={"networkSecurityGroup": {"id": nsg.id}})
    disk = azure.disk()
    attach = {"dataDisks": [{"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk.id}}]}
    vm = azure.vm(nic, properties={"storageProfile": attach})

    assert vm.provisioning_state == "Succeeded"
    assert vm.id.endswith("/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm")
    assert vm.os_profile.custom_data is None  # never shown again
    shown = azure.network.network_interfaces.get("rg", "nic")
    assert shown.virtual_machine.id == vm.id
    assert shown.ip_configurations[0].private_ip_address == "10.0.0.4"
    assert azure.network.public_ip_addresses.get("rg", "ip").ip_configuration.id == shown.ip_configurations[0].id
    assert azure.compute.disks.get("rg", "data").managed_by == vm.id
    assert azure.compute.disks.get("rg", "os").disk_state == "Attached"
    group = azure.network.network_security_groups.get("rg", "nsg")
    assert [rule.name for rule in group.security_rules] == ["ssh"]
    assert {item.id for item in (*group.network_interfaces, *group.subnets)} == {nic.id, subnet.id}
    assert azure.kinds() == {
        "resourceGroups": 1, "virtualNetworks": 1, "subnets": 1, "networkSecurityGroups": 1, "securityRules": 1,
        "publicIPAddresses": 1, "networkInterfaces": 1, "disks": 2, "virtualMachines": 1,
    }  # fmt: skip

    azure.resources.resource_groups.begin_delete("rg").result()
    assert azure.kinds() == {}
    assert not [owner for owner in azure.server.cloud.addresses.owned().values() if azure.subscription in owner]
    assert azure.resources.resource_groups.check_existence("rg") is False


def test_lists_by_group_by_subscription_by_tag_and_by_type(azure: Azure) -> None:
    azure.group("one")
    azure.group("two")
    azure.vnet(group="one", tags={"fedspan-deployment": "d1"})
    azure.vnet(group="two", tags={"fedspan-deployment": "d2"})
    azure.address(group="one", tags={"fedspan-deployment": "d1"})

    assert {group.name for group in azure.resources.resource_groups.list()} == {"one", "two"}
    assert len(list(azure.network.virtual_networks.list_all())) == 2
    assert [vnet.tags for vnet in azure.network.virtual_networks.list("two")] == [{"fedspan-deployment": "d2"}]
    tagged = azure.resources.resources.list(filter="tagName eq 'fedspan-deployment' and tagValue eq 'd1'")
    assert {item.type for item in tagged} == {
        "Microsoft.Network/virtualNetworks",
        "Microsoft.Network/publicIPAddresses",
    }
    typed = azure.resources.resources.list(filter="resourceType eq 'Microsoft.Network/virtualNetworks'")
    assert len(list(typed)) == 2
    assert len(list(azure.resources.resources.list_by_resource_group("one"))) == 2
    azure.subnet(group="one")
    assert [subnet.name for subnet in azure.network.subnets.list("one", "vnet")] == ["subnet"]


def test_ids_and_names_are_compared_without_case_and_shown_as_first_written(azure: Azure) -> None:
    azure.group("Mixed")
    azure.vnet("Net", group="mixed")
    found = azure.network.virtual_networks.get("MIXED", "NET")
    assert found.name == "Net"
    azure.vnet("net", group="Mixed", tags={"a": "b"})
    assert len(list(azure.network.virtual_networks.list_all())) == 1


def test_a_put_of_what_exists_updates_it_and_keeps_address_children_and_identity(azure: Azure) -> None:
    nic = azure.network_for_vm()
    first = azure.address(tags={"a": "1"})
    again = azure.address(tags={"a": "2"})
    assert (again.ip_address, again.resource_guid) == (first.ip_address, first.resource_guid)
    assert again.tags == {"a": "2"}
    before = azure.vm(nic)
    after = azure.vm(nic, tags={"b": "c"})
    assert after.vm_id == before.vm_id
    assert [m.boots for m in azure.server.machines() if m.account == azure.subscription] == [0]
    vnet = azure.vnet(tags={"x": "y"})
    assert [subnet.name for subnet in vnet.subnets] == ["subnet"]


def test_a_security_group_put_without_rules_removes_its_rules_as_arm_does(azure: Azure) -> None:
    azure.group()
    azure.nsg(properties={"securityRules": [{"name": "ssh", "properties": RULE}]})
    assert azure.network.security_rules.get("rg", "nsg", "ssh").priority == 100
    assert azure.nsg(tags={"a": "b"}).security_rules == []


def test_deletes_of_what_is_gone_succeed_and_gets_say_what_is_missing(azure: Azure) -> None:
    with refused("ResourceGroupNotFound", "'rg'", status=404):
        azure.network.virtual_networks.get("rg", "vnet")
    azure.group()
    azure.network.virtual_networks.begin_delete("rg", "vnet").result()
    with refused("ResourceNotFound", "Microsoft.Network/virtualNetworks/vnet", status=404):
        azure.network.virtual_networks.get("rg", "vnet")
    azure.vnet()
    with pytest.raises(ResourceNotFoundError):
        azure.network.subnets.get("rg", "vnet", "none")


def test_long_operations_are_polled_until_they_end(azure: Azure, fault: Callable[..., None]) -> None:
    fault(delays={"network": 0.6, "group": 0.4})
    begun = time.monotonic()
    azure.group()
    assert time.monotonic() - begun >= 0.4
    begun = time.monotonic()
    poller = azure.network.virtual_networks.begin_create_or_update(
        "rg", "vnet", {"location": REGION, "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}}
    )
    assert azure.network.virtual_networks.get("rg", "vnet").provisioning_state == "Updating"
    assert poller.result().provisioning_state == "Succeeded"
    assert time.monotonic() - begun >= 0.6
    poller = azure.resources.resource_groups.begin_delete("rg")
    assert azure.resources.resource_groups.get("rg").properties.provisioning_state == "Deleting"
    with refused("ResourceGroupBeingDeleted", status=409):
        azure.nsg()
    poller.result()
    assert azure.kinds() == {}


def test_a_machine_is_stopped_deallocated_started_and_shows_its_power_state(azure: Azure) -> None:
    azure.vm(azure.network_for_vm())
    machines = azure.compute.virtual_machines

    def power() -> list[str]:
        view = machines.instance_view("rg", "vm")
        return [status.code for status in view.statuses]

    assert power() == ["ProvisioningState/succeeded", "PowerState/running"]
    machines.begin_power_off("rg", "vm").result()
    assert power()[1] == "PowerState/stopped"
    machines.begin_deallocate("rg", "vm").result()
    assert power()[1] == "PowerState/deallocated"
    assert azure.compute.disks.get("rg", "os").disk_state == "Reserved"
    machines.begin_start("rg", "vm").result()
    machines.begin_restart("rg", "vm").result()
    spec = next(m for m in azure.server.machines() if m.account == azure.subscription)
    assert (spec.running, spec.boots) == (True, 2)
    assert machines.get("rg", "vm", expand="instanceView").instance_view.statuses[1].code == "PowerState/running"


def test_boot_diagnostics_give_the_serial_console(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.vm(nic)
    with refused("OperationNotAllowed", "not enabled"):
        azure.compute.virtual_machines.retrieve_boot_diagnostics_data("rg", "vm")
    azure.vm(nic, properties={"diagnosticsProfile": {"bootDiagnostics": {"enabled": True}}})
    found = azure.compute.virtual_machines.retrieve_boot_diagnostics_data("rg", "vm")
    text = requests.get(found.serial_console_log_blob_uri, verify=str(azure.server.ca_file), timeout=60).text
    assert "cloud-init" in text


def test_deleting_a_machine_takes_its_system_disk_and_leaves_interface_address_and_data(azure: Azure) -> None:
    nic = azure.network_for_vm()
    disk = azure.disk()
    attach = {"dataDisks": [{"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk.id}}]}
    azure.vm(nic, properties={"storageProfile": attach})
    address = azure.network.public_ip_addresses.get("rg", "ip").ip_address
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    assert {disk.name for disk in azure.compute.disks.list()} == {"data"}
    assert azure.compute.disks.get("rg", "data").disk_state == "Unattached"
    assert azure.network.network_interfaces.get("rg", "nic").virtual_machine is None
    azure.vm(nic, properties={"storageProfile": attach})  # and all of it serves the next machine
    assert azure.network.public_ip_addresses.get("rg", "ip").ip_address == address


def test_delete_options_are_kept_for_disks_and_interfaces(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.vm(
        nic,
        properties={
            "networkProfile": {"networkInterfaces": [{"id": nic.id, "properties": {"deleteOption": "Delete"}}]},
            "storageProfile": {
                "osDisk": {"deleteOption": "Detach"},
                "dataDisks": [{"lun": 1, "createOption": "Empty", "diskSizeGB": 4, "deleteOption": "Delete"}],
            },
        },
    )
    assert azure.kinds()["disks"] == 2
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    assert [disk.name for disk in azure.compute.disks.list()] == ["os"]
    assert list(azure.network.network_interfaces.list_all()) == []


def test_patches_change_tags_of_networks_and_sizes_of_machines(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.network.virtual_networks.update_tags("rg", "vnet", {"tags": {"k": "v"}})
    assert azure.network.virtual_networks.get("rg", "vnet").tags == {"k": "v"}
    azure.vm(nic)
    change = {"properties": {"hardwareProfile": {"vmSize": "Standard_D4s_v5"}}}
    azure.compute.virtual_machines.begin_update("rg", "vm", change).result()
    spec = next(m for m in azure.server.machines() if m.account == azure.subscription)
    assert (spec.size, spec.boots, spec.user_data) == ("Standard_D4s_v5", 1, USER_DATA)
    azure.disk()
    azure.compute.disks.begin_update("rg", "data", {"properties": {"diskSizeGB": 64}}).result()
    assert azure.compute.disks.get("rg", "data").disk_size_gb == 64
    azure.resources.resource_groups.update("rg", {"tags": {"a": "b"}})
    assert azure.resources.resource_groups.get("rg").tags == {"a": "b"}


def test_etags_guard_against_lost_updates(azure: Azure) -> None:
    azure.group()
    first = azure.vnet()
    body = {"location": REGION, "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}}
    write = azure.network.virtual_networks.begin_create_or_update
    write("rg", "vnet", body, headers={"If-Match": first.etag}).result()
    with pytest.raises(HttpResponseError) as caught:
        write("rg", "vnet", body, headers={"If-Match": first.etag})
    assert caught.value.status_code == 412
    with pytest.raises(HttpResponseError):
        write("rg", "vnet", body, headers={"If-None-Match": "*"})
    assert MatchConditions.IfNotModified  # the SDK's own word for the first of them


def test_regions_sizes_skus_quotas_images_and_providers_can_be_asked(azure: Azure, fault: Callable[..., None]) -> None:
    compute = azure.compute
    sizes = {size.name: size for size in compute.virtual_machine_sizes.list(REGION)}
    assert sizes["Standard_NC4as_T4_v3"].number_of_cores == 4
    fault(no_capacity=["westeurope-2"])
    skus = compute.resource_skus.list(filter=f"location eq '{REGION}'")
    gpu = next(sku for sku in skus if sku.name == "Standard_NC4as_T4_v3")
    assert {c.name: c.value for c in gpu.capabilities}["GPUs"] == "1"
    assert gpu.restrictions[0].restriction_info.zones == ["2"]
    azure.vm(azure.network_for_vm())
    usage = {u.name.value: u for u in compute.usage.list(REGION)}
    assert usage["cores"].current_value == 2
    assert usage["standardDSv5Family"].current_value == 2
    public = next(u for u in azure.network.usages.list(REGION) if u.name.value == "PublicIPAddresses")
    assert public.current_value == 1
    offers = compute.virtual_machine_images.list_skus(REGION, "Canonical", "ubuntu-24_04-lts")
    assert "server" in [offer.name for offer in offers]
    assert compute.virtual_machine_images.list(REGION, "Canonical", "ubuntu-24_04-lts", "server")
    assert azure.resources.providers.get("Microsoft.Compute").registration_state == "Registered"


def test_an_unregistered_provider_is_refused_until_it_is_registered(azure: Azure) -> None:
    azure.group()
    azure.resources.providers.unregister("Microsoft.Network")
    with refused("MissingSubscriptionRegistration", "Microsoft.Network", status=409):
        azure.vnet()
    azure.resources.providers.register("Microsoft.Network")
    azure.vnet()


def test_a_spot_machine_is_evicted_and_deallocated(azure: Azure) -> None:
    azure.vm(azure.network_for_vm(), properties={"priority": "Spot", "billingProfile": {"maxPrice": -1}})
    azure.compute.virtual_machines.simulate_eviction("rg", "vm")
    spec = next(m for m in azure.server.machines() if m.account == azure.subscription)
    assert spec.running is False


def test_a_machine_can_be_deleted_while_it_is_being_made(azure: Azure, fault: Callable[..., None]) -> None:
    nic = azure.network_for_vm()
    fault(delays={"Microsoft.Compute/virtualMachines": 0.5})
    poller = azure.compute.virtual_machines.begin_create_or_update("rg", "vm", vm_body(nic.id))
    fault()
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    with refused("OperationPreempted"):
        poller.result()
    assert "virtualMachines" not in azure.kinds()


def test_two_regions_and_two_subscriptions_do_not_mix(azure: Azure) -> None:
    other = Azure(azure.server, "0b1c1d1e-0000-4000-8000-000000000001", azure.environment)
    azure.server.add_subscription(other.subscription)
    azure.group()
    assert list(other.resources.resource_groups.list()) == []
    other.group()
    other.vnet()
    subnet = other.subnet()
    with refused("InvalidResourceReference"):
        azure.nic(subnet)
    other.resources.resource_groups.begin_delete("rg").result()
    assert azure.resources.resource_groups.check_existence("rg") is True
