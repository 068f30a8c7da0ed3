"""The azure-native plugin over gRPC, as an engine calls it: names, differences, waits, failures, imports, refreshes."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2
from waiting import until

from deployer.sandbox.azure import AzureNativeProvider

from .arm_kit import PUBLIC_KEY, REGION, SECRET, UNKNOWN, USER_DATA, Azure, Failed, Plugin, plain, serving

GROUP = "azure-native:resources:ResourceGroup"
VNET = "azure-native:network:VirtualNetwork"
SUBNET = "azure-native:network:Subnet"
NSG = "azure-native:network:NetworkSecurityGroup"
RULE = "azure-native:network:SecurityRule"
ADDRESS = "azure-native:network:PublicIPAddress"
NIC = "azure-native:network:NetworkInterface"
DISK = "azure-native:compute:Disk"
VM = "azure-native:compute:VirtualMachine"

IN_GROUP = {"resourceGroupName": "rg", "location": REGION}
ADDRESS_INPUTS = {
    **IN_GROUP,
    "publicIpAddressName": "ip",
    "sku": {"name": "Standard"},
    "publicIPAllocationMethod": "Static",
    "zones": ["1", "2", "3"],
}
VNET_INPUTS = {**IN_GROUP, "virtualNetworkName": "vnet", "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}
NSG_INPUTS = {**IN_GROUP, "networkSecurityGroupName": "nsg"}
KINDS = provider_pb2.PropertyDiff


def group(plugin: Plugin) -> None:
    plugin.create(GROUP, "rg", {"resourceGroupName": "rg", "location": REGION})


def vm_inputs(nic: str, **change: Any) -> dict[str, Any]:
    return {
        **IN_GROUP,
        "vmName": "vm",
        "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
        "networkProfile": {"networkInterfaces": [{"id": nic, "primary": True}]},
        "storageProfile": {
            "imageReference": {
                "publisher": "Canonical",
                "offer": "ubuntu-24_04-lts",
                "sku": "server",
                "version": "latest",
            },
            "osDisk": {"name": "os", "createOption": "FromImage", "deleteOption": "Delete", "diskSizeGB": 64.0},
        },
        "osProfile": {
            "adminUsername": "fedspan",
            "computerName": "site-1",
            "customData": {SECRET: "1b47061264138c4ac30d75fd1eb44270", "value": _data(USER_DATA)},
            "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "ssh": {"publicKeys": [{"keyData": PUBLIC_KEY, "path": "/home/fedspan/.ssh/authorized_keys"}]},
            },
        },
        **change,
    }


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def nic(plugin: Plugin) -> str:
    """All that a machine needs; returns the interface's ID."""
    group(plugin)
    plugin.create(VNET, "vnet", VNET_INPUTS)
    subnet, _, _ = plugin.create(
        SUBNET,
        "subnet",
        {"resourceGroupName": "rg", "virtualNetworkName": "vnet", "subnetName": "s", "addressPrefix": "10.0.0.0/24"},
    )
    address, _, _ = plugin.create(ADDRESS, "ip", ADDRESS_INPUTS)
    config = {"name": "primary", "subnet": {"id": subnet}, "publicIPAddress": {"id": address}}
    made, _, outputs = plugin.create(
        NIC, "nic", {**IN_GROUP, "networkInterfaceName": "nic", "ipConfigurations": [config]}
    )
    assert outputs["ipConfigurations"][0]["subnet"]["id"] == subnet
    return made


def test_properties_are_flat_on_the_way_in_and_out_and_the_id_is_arms(plugin: Plugin, azure: Azure) -> None:
    machine = nic(plugin)
    made, inputs, outputs = plugin.create(VM, "vm", vm_inputs(machine))
    root = f"/subscriptions/{azure.subscription}/resourceGroups/rg/providers"
    assert made == f"{root}/Microsoft.Compute/virtualMachines/vm"
    assert outputs["provisioningState"] == "Succeeded"
    assert outputs["azureApiVersion"] == "2024-11-01"
    assert outputs["storageProfile"]["osDisk"]["managedDisk"]["id"] == f"{root}/Microsoft.Compute/disks/os"
    assert outputs["networkProfile"]["networkInterfaces"] == [{"id": machine, "primary": True}]
    assert "properties" not in outputs
    assert "customData" not in outputs["osProfile"]
    assert SECRET in str(inputs["osProfile"])  # a secret stays one
    assert azure.compute.virtual_machines.get("rg", "vm").vm_id == outputs["vmId"]


def test_names_are_made_up_as_the_real_provider_does(plugin: Plugin) -> None:
    inputs, _ = plugin.check(VNET, "net", {"resourceGroupName": "rg", "location": REGION})
    name = inputs["virtualNetworkName"]
    assert name.startswith("net")
    assert len(name) == len("net") + 8
    assert inputs["__createBeforeDelete"] is True
    again, _ = plugin.check(VNET, "net", {"resourceGroupName": "rg", "location": REGION}, inputs)
    assert again["virtualNetworkName"] == name
    nested, _ = plugin.check(SUBNET, "sub", {"resourceGroupName": "rg", "virtualNetworkName": "vnet"})
    assert nested["subnetName"] == "sub"  # a child takes its logical name
    assert "__createBeforeDelete" not in nested


def test_the_location_comes_from_the_configuration_or_the_group(plugin: Plugin, azure: Azure) -> None:
    _, failures = plugin.check(GROUP, "rg", {"resourceGroupName": "rg"})
    assert "pulumi config set azure-native:location" in failures["location"]
    group(plugin)
    inputs, failures = plugin.check(VNET, "net", {"resourceGroupName": "rg"})
    assert (inputs["location"], failures) == (REGION, {})
    inputs, _ = plugin.check(VNET, "net", {"resourceGroupName": UNKNOWN})
    assert inputs["location"] == UNKNOWN
    plugin.configure(subscriptionId=azure.subscription, location="eastus")
    inputs, _ = plugin.check(VNET, "net", {"resourceGroupName": "rg"})
    assert inputs["location"] == "eastus"


def test_missing_and_unknown_properties_are_named_before_anything_is_sent(plugin: Plugin) -> None:
    _, failures = plugin.check(RULE, "r", {"resourceGroupName": "rg", "priority": 100.0, "acces": "Allow"})
    assert set(failures) == {"networkSecurityGroupName", "access", "direction", "protocol", "acces"}


def test_what_exists_already_is_not_taken_over(plugin: Plugin, azure: Azure) -> None:
    azure.group()
    with pytest.raises(Failed, match="cannot create already existing resource '/subscriptions/"):
        group(plugin)


def test_arms_refusals_come_with_status_code_and_message(plugin: Plugin) -> None:
    group(plugin)
    with pytest.raises(
        Failed, match=r'Status=400 Code="InvalidCIDRNotation" Message="The address prefix 10\.0\.0\.1/16'
    ):
        plugin.create(VNET, "v", {**VNET_INPUTS, "addressSpace": {"addressPrefixes": ["10.0.0.1/16"]}})
    with pytest.raises(Failed, match="Could not find member 'addressPrefix' on object of type"):
        plugin.create(VNET, "v", {**VNET_INPUTS, "addressSpace": {"addressPrefix": "10.0.0.0/16"}})


@pytest.mark.parametrize(
    ("token", "old", "change", "replaced"),
    [
        (GROUP, {"resourceGroupName": "rg", "location": REGION}, {"location": "eastus"}, ["location"]),
        (GROUP, {"resourceGroupName": "rg", "location": REGION}, {"tags": {"a": "b"}}, []),
        (VNET, VNET_INPUTS, {"virtualNetworkName": "other"}, ["virtualNetworkName"]),
        (VNET, VNET_INPUTS, {"resourceGroupName": UNKNOWN}, ["resourceGroupName"]),
        (VNET, VNET_INPUTS, {"location": "eastus"}, ["location"]),
        (VNET, VNET_INPUTS, {"addressSpace": {"addressPrefixes": ["10.0.0.0/8"]}}, []),
        (NSG, NSG_INPUTS, {"location": "eastus"}, []),  # ARM will refuse it, as in the field
        (ADDRESS, ADDRESS_INPUTS, {"sku": {"name": "StandardV2"}}, ["sku"]),
        (ADDRESS, ADDRESS_INPUTS, {"zones": ["1"]}, []),
        (VM, vm_inputs("/n"), {"hardwareProfile": {"vmSize": "Standard_D4s_v5"}}, []),
        (VM, vm_inputs("/n"), {"location": "eastus"}, ["location"]),
        (VM, vm_inputs("/n"), {"vmName": "other"}, ["vmName"]),
        (VM, vm_inputs("/n"), {"osProfile": {**vm_inputs("/n")["osProfile"], "customData": _data("x")}}, []),
    ],
)
def test_what_a_change_replaces_is_what_the_real_provider_replaces(
    plugin: Plugin, token: str, old: dict[str, Any], change: dict[str, Any], replaced: list[str]
) -> None:
    inputs, _ = plugin.check(token, "x", old)
    answer = plugin.diff(token, "x", "/subscriptions/s/resourceGroups/rg", inputs, plain(inputs), {**old, **change})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert list(answer.replaces) == replaced
    assert answer.deleteBeforeReplace == bool(replaced)  # fixed names: the old one has to go first
    kinds = {detail.kind for detail in answer.detailedDiff.values()}
    assert bool(kinds & {KINDS.UPDATE_REPLACE, KINDS.ADD_REPLACE, KINDS.DELETE_REPLACE}) == bool(replaced)


def test_a_randomly_named_resource_is_replaced_by_making_the_new_one_first(plugin: Plugin) -> None:
    given = {"resourceGroupName": "rg", "location": REGION}
    inputs, _ = plugin.check(VNET, "net", given)
    answer = plugin.diff(VNET, "net", "/x", inputs, inputs, {**given, "location": "eastus"})
    assert (list(answer.replaces), answer.deleteBeforeReplace) == (["location"], False)


def test_previews_know_inputs_and_nothing_else_and_make_nothing(plugin: Plugin, azure: Azure) -> None:
    _, _, outputs = plugin.create(ADDRESS, "ip", ADDRESS_INPUTS, preview=True)
    assert (outputs["ipAddress"], outputs["name"], outputs["location"]) == (UNKNOWN, UNKNOWN, REGION)
    assert azure.kinds() == {}


def test_updates_keep_lists_that_other_resources_fill(plugin: Plugin, azure: Azure) -> None:
    nic(plugin)
    made, inputs, outputs = plugin.create(NSG, "nsg", NSG_INPUTS)
    rule = {
        "resourceGroupName": "rg",
        "networkSecurityGroupName": "nsg",
        "securityRuleName": "ssh",
        "priority": 100.0,
        "access": "Allow",
        "direction": "Inbound",
        "protocol": "Tcp",
        "sourceAddressPrefix": "198.51.100.10/32",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "22",
    }
    plugin.create(RULE, "ssh", rule)
    plugin.update(NSG, "nsg", made, inputs, outputs, {**NSG_INPUTS, "tags": {"a": "b"}})
    assert [rule.name for rule in azure.network.security_rules.list("rg", "nsg")] == ["ssh"]
    vnet = azure.network.virtual_networks.get("rg", "vnet").id
    plugin.update(VNET, "vnet", vnet, VNET_INPUTS, {}, {**VNET_INPUTS, "tags": {"a": "b"}})
    assert [subnet.name for subnet in azure.network.subnets.list("rg", "vnet")] == ["s"]


def test_a_refresh_takes_over_what_changed_outside_and_nothing_else(plugin: Plugin, azure: Azure) -> None:
    machine = nic(plugin)
    disk, disk_inputs, disk_outputs = plugin.create(
        DISK,
        "data",
        {**IN_GROUP, "diskName": "data", "diskSizeGB": 32.0, "creationData": {"createOption": "Empty"}},
    )
    made, inputs, outputs = plugin.create(VM, "vm", vm_inputs(machine, tags={"a": "1"}))
    for token, resource_id, given, state in ((VM, made, inputs, outputs), (DISK, disk, disk_inputs, disk_outputs)):
        found, fresh, _ = plugin.read(token, resource_id, given, state)
        assert (found, plain(fresh)) == (resource_id, plain(given))
    azure.compute.disks.begin_update("rg", "data", {"tags": {"by": "hand"}}).result()
    azure.compute.virtual_machines.begin_update("rg", "vm", {"tags": {"a": "2"}}).result()
    _, fresh, _ = plugin.read(DISK, disk, disk_inputs, disk_outputs)
    assert plain(fresh) == {**plain(disk_inputs), "tags": {"by": "hand"}}
    _, fresh, _ = plugin.read(VM, made, inputs, outputs)
    assert plain(fresh) == {**plain(inputs), "tags": {"a": "2"}}
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    assert plugin.read(VM, made, inputs, outputs)[0] == ""


def test_a_refresh_ignores_subnets_and_rules_that_are_resources_of_their_own(plugin: Plugin, azure: Azure) -> None:
    group(plugin)
    made, inputs, outputs = plugin.create(VNET, "vnet", VNET_INPUTS)
    azure.subnet()
    _, fresh, state = plugin.read(VNET, made, inputs, outputs)
    assert plain(fresh) == plain(inputs)
    assert [subnet["name"] for subnet in state["subnets"]] == ["subnet"]


def test_an_import_gives_the_inputs_that_make_the_resource_again(plugin: Plugin, azure: Azure) -> None:
    group(plugin)
    made, inputs, _ = plugin.create(ADDRESS, "ip", ADDRESS_INPUTS)
    found, imported, outputs = plugin.read(ADDRESS, made)
    assert found == made
    assert plain(imported) == {
        **plain(inputs),
        "sku": {"name": "Standard", "tier": "Regional"},
        "publicIPAddressVersion": "IPv4",
        "idleTimeoutInMinutes": 4,
        "ipAddress": outputs["ipAddress"],
    }
    same = plugin.diff(ADDRESS, "ip", made, imported, outputs, imported)
    assert same.changes == provider_pb2.DiffResponse.DIFF_NONE
    with pytest.raises(Failed, match="is not the ID of an azure-native:network:VirtualNetwork"):
        plugin.read(VNET, made)
    assert plugin.read(ADDRESS, made.replace("/ip", "/none"))[0] == ""


def test_a_machine_that_finds_no_place_is_made_but_not_initialised_and_the_next_update_mends_it(
    plugin: Plugin, azure: Azure, fault: Callable[..., None]
) -> None:
    machine = nic(plugin)
    given = vm_inputs(machine, zones=["1"])
    fault(no_capacity=["westeurope-1"])
    with pytest.raises(Failed, match='Code="ZonalAllocationFailed"') as caught:
        plugin.create(VM, "vm", given)
    init = caught.value.init
    assert init is not None
    assert init.id.endswith("/virtualMachines/vm")
    assert init.properties["provisioningState"] == "Failed"
    fault()
    outputs = plugin.update(VM, "vm", init.id, plain(given), {}, given)
    assert outputs["provisioningState"] == "Succeeded"


def test_a_region_without_capacity_makes_nothing(plugin: Plugin, azure: Azure, fault: Callable[..., None]) -> None:
    machine = nic(plugin)
    fault(no_capacity=[REGION])
    with pytest.raises(Failed, match='Status=409 Code="SkuNotAvailable"') as caught:
        plugin.create(VM, "vm", vm_inputs(machine))
    assert caught.value.init is None
    assert "virtualMachines" not in azure.kinds()


def test_cancel_ends_a_wait_and_keeps_what_was_made(plugin: Plugin, azure: Azure, fault: Callable[..., None]) -> None:
    group(plugin)
    fault(delays={"network": 600})

    def cancel() -> None:
        until(lambda: "virtualNetworks" in azure.kinds())
        plugin.stub.Cancel(empty_pb2.Empty())

    threading.Thread(target=cancel).start()
    with pytest.raises(Failed, match="cancelled") as caught:
        plugin.create(VNET, "vnet", VNET_INPUTS)
    assert caught.value.init is not None
    assert caught.value.init.properties["provisioningState"] == "Updating"


def test_a_custom_timeout_ends_a_wait(plugin: Plugin, fault: Callable[..., None]) -> None:
    group(plugin)
    fault(delays={"network": 600})
    with pytest.raises(Failed, match="timeout") as caught:
        plugin.create(VNET, "vnet", VNET_INPUTS, timeout=0.5)
    assert caught.value.init is not None


def test_deletes_wait_until_it_is_gone_and_are_happy_when_it_is_gone_already(
    plugin: Plugin, azure: Azure, fault: Callable[..., None]
) -> None:
    group(plugin)
    made, _, _ = plugin.create(VNET, "vnet", VNET_INPUTS)
    fault(delays={"network": 0.4})
    plugin.delete(VNET, made)
    plugin.delete(VNET, made)
    assert azure.kinds() == {"resourceGroups": 1}
    root = f"/subscriptions/{azure.subscription}/resourceGroups/rg"
    plugin.delete(GROUP, root)
    assert azure.kinds() == {}
    plugin.delete(VNET, made)  # its group is gone too


def test_a_delete_that_arm_refuses_says_why(plugin: Plugin, azure: Azure) -> None:
    nic(plugin)
    address = azure.network.public_ip_addresses.get("rg", "ip").id
    with pytest.raises(Failed, match='Code="PublicIPAddressCannotBeDeleted"'):
        plugin.delete(ADDRESS, address)


def test_functions_answer_the_identity_and_existing_resources(plugin: Plugin, azure: Azure) -> None:
    who = plugin.invoke("azure-native:authorization:getClientConfig")
    assert who["subscriptionId"] == azure.subscription
    assert who["tenantId"] == azure.environment["ARM_TENANT_ID"]
    group(plugin)
    _, _, outputs = plugin.create(ADDRESS, "ip", ADDRESS_INPUTS)
    found = plugin.invoke("azure-native:network:getPublicIPAddress", resourceGroupName="rg", publicIpAddressName="ip")
    assert found["ipAddress"] == outputs["ipAddress"]
    with pytest.raises(Failed, match="ResourceNotFound"):
        plugin.invoke("azure-native:network:getPublicIPAddress", resourceGroupName="rg", publicIpAddressName="no")
    with pytest.raises(Failed, match="does not emulate the function"):
        plugin.invoke("azure-native:storage:getBlob")


def test_wrong_identities_are_told_as_the_real_provider_tells_them(azure: Azure) -> None:
    def attempt(environment: dict[str, str], **config: Any) -> None:
        provider = AzureNativeProvider(azure.server.url, azure.server.ca_file, environment)
        with serving(provider) as address:
            engine = Plugin(address)
            engine.configure(**config)
            group(engine)

    own = azure.environment
    without = {key: value for key, value in own.items() if "SUBSCRIPTION" not in key}
    with pytest.raises(Failed, match="could not determine the subscription"):
        attempt(without)
    with pytest.raises(Failed, match="clientSecret not set"):
        attempt({key: value for key, value in own.items() if "SECRET" not in key})
    with pytest.raises(Failed, match="SubscriptionNotFound"):
        attempt(own, subscriptionId="f0e1d2c3-dead-4000-8000-000000000001")
    with pytest.raises(Failed, match="AADSTS90002"):
        attempt(own, tenantId="f0e1d2c3-dead-4000-8000-000000000001")
    with pytest.raises(Failed, match="ClientSecretCredential authentication failed: AADSTS7000215"):
        attempt(own, clientSecret="wrong")
    theirs = azure.server.add_subscription(
        "f0e1d2c3-0000-4000-8000-00000000000a", "aaaa0000-0000-4000-8000-00000000000a"
    )
    with pytest.raises(Failed, match="InvalidAuthenticationTokenTenant"):
        attempt(own, subscriptionId=theirs.id)
    with pytest.raises(Failed, match="talks to the emulated Azure at"):
        attempt(own, metadataHost="management.azure.com")


def test_an_azure_that_is_gone_is_an_error_not_a_traceback(azure: Azure) -> None:
    provider = AzureNativeProvider(
        "https://127.0.0.1:9", azure.server.ca_file, {**azure.environment, "ARM_METADATA_HOSTNAME": ""}
    )
    with serving(provider) as address:
        engine = Plugin(address)
        engine.configure()
        with pytest.raises(Failed, match="does not answer: ConnectionError"):
            group(engine)


ROLE = "azure-native:authorization:RoleAssignment"


def test_a_role_for_a_machines_identity_is_made_read_and_deleted_at_the_machine(plugin: Plugin, azure: Azure) -> None:
    given = vm_inputs(nic(plugin), identity={"type": "SystemAssigned"})
    machine, inputs, outputs = plugin.create(VM, "vm", given)
    principal = outputs["identity"]["principalId"]
    found, fresh, _ = plugin.read(VM, machine, inputs, outputs)
    assert (found, plain(fresh)) == (machine, plain(inputs))
    wanted = {
        "scope": machine,
        "principalId": principal,
        "roleDefinitionId": f"/subscriptions/{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions/"
        "40c5ff49-9181-41f8-ae61-143b0e78555e",
        "principalType": "ServicePrincipal",
        "roleAssignmentName": "0b2f4d5e-0000-4000-8000-000000000001",
    }
    made, inputs, outputs = plugin.create(ROLE, "role", wanted)
    assert made == f"{machine}/providers/Microsoft.Authorization/roleAssignments/{wanted['roleAssignmentName']}"
    assert (outputs["scope"], outputs["principalId"], outputs["name"]) == (
        machine,
        principal,
        wanted["roleAssignmentName"],
    )
    found, fresh, _ = plugin.read(ROLE, made, inputs, outputs)
    assert (found, plain(fresh)) == (made, plain(inputs))
    _, imported, _ = plugin.read(ROLE, made)
    assert plain(imported) == plain(inputs)
    with pytest.raises(Failed, match="cannot create already existing resource"):
        plugin.create(ROLE, "role", wanted)
    with pytest.raises(Failed, match='Status=409 Code="RoleAssignmentExists"'):
        plugin.create(ROLE, "other", {**wanted, "roleAssignmentName": "0b2f4d5e-0000-4000-8000-000000000002"})
    with pytest.raises(Failed, match="is not the ID of an azure-native:authorization:RoleAssignment"):
        plugin.read(ROLE, machine)
    plugin.delete(ROLE, made)
    assert "roleAssignments" not in azure.kinds()
    plugin.delete(ROLE, made)
    assert plugin.read(ROLE, made, inputs, outputs)[0] == ""


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"principalId": "0b2f4d5e-0000-4000-8000-000000000009"}, ["principalId"]),
        ({"scope": "/subscriptions/s/resourceGroups/other"}, ["scope"]),
        ({"roleAssignmentName": "0b2f4d5e-0000-4000-8000-000000000008"}, ["roleAssignmentName"]),
        ({"roleDefinitionId": "/other"}, []),  # ARM will refuse it, as in the field
        ({"description": "why"}, []),
    ],
)
def test_another_principal_scope_or_name_is_another_assignment(
    plugin: Plugin, change: dict[str, str], replaced: list[str]
) -> None:
    old = {
        "scope": "/subscriptions/s/resourceGroups/rg",
        "principalId": "0b2f4d5e-0000-4000-8000-000000000001",
        "roleDefinitionId": "/role",
        "roleAssignmentName": "0b2f4d5e-0000-4000-8000-000000000002",
    }
    inputs, failures = plugin.check(ROLE, "r", old)
    assert failures == {}
    answer = plugin.diff(ROLE, "r", "/x", inputs, inputs, {**old, **change})
    assert list(answer.replaces) == replaced
    unnamed, _ = plugin.check(ROLE, "r", {key: value for key, value in old.items() if key != "roleAssignmentName"})
    assert uuid.UUID(unnamed["roleAssignmentName"]).version == 4
    _, failures = plugin.check(ROLE, "r", {})
    assert set(failures) == {"scope", "principalId", "roleDefinitionId"}


def test_a_preview_does_not_know_what_only_azure_sets_within_an_object(plugin: Plugin) -> None:
    _, _, outputs = plugin.create(VM, "vm", vm_inputs("/nic", identity={"type": "SystemAssigned"}), preview=True)
    assert (outputs["identity"]["type"], outputs["identity"]["principalId"]) == ("SystemAssigned", UNKNOWN)
    (interface,) = outputs["networkProfile"]["networkInterfaces"]
    assert (interface["id"], outputs["hardwareProfile"]["vmSize"]) == ("/nic", "Standard_D2s_v5")
