"""Quotas, regions without room, failures on request, and what needs more than a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from .arm_kit import REGION, Azure, refused


def test_cores_beyond_the_quota_are_refused_with_the_figures(azure: Azure) -> None:
    azure.server.cloud.quotas[(azure.subscription, REGION, "cores")] = 3
    nic = azure.network_for_vm()
    azure.vm(nic)
    with refused("OperationNotAllowed", "Current Limit: 3", "Current Usage: 2", "Additional Required: 2", status=409):
        azure.vm(azure.nic(azure.network.subnets.get("rg", "vnet", "subnet"), name="two"), "two")
    with refused("OperationNotAllowed", "quota"):
        azure.vm(nic, properties={"hardwareProfile": {"vmSize": "Standard_D4s_v5"}})


def test_a_region_without_capacity_refuses_at_once_and_a_zone_fails_later(
    azure: Azure, fault: Callable[..., None]
) -> None:
    nic = azure.network_for_vm()
    fault(no_capacity=["westeurope"])
    with refused("SkuNotAvailable", "Standard_D2s_v5", "westeurope", status=409):
        azure.vm(nic)
    assert "virtualMachines" not in azure.kinds()
    fault(no_capacity=["westeurope-2"])
    with refused("ZonalAllocationFailed", "zone 2"):
        azure.vm(nic, zones=["2"])
    assert azure.compute.virtual_machines.get("rg", "vm").provisioning_state == "Failed"
    assert [m for m in azure.server.machines() if m.account == azure.subscription] == []
    fault()
    assert azure.vm(nic, zones=["2"]).provisioning_state == "Succeeded"  # a later PUT makes it whole
    assert [m.running for m in azure.server.machines() if m.account == azure.subscription] == [True]


def test_failures_on_request_leave_the_resource_failed_and_what_refers_to_it_waits(
    azure: Azure, fault: Callable[..., None]
) -> None:
    azure.group()
    azure.vnet()
    subnet = azure.subnet()
    fault(fail={"address": "InternalServerError: an error of the datacentre"})
    with refused("InternalServerError", "of the datacentre"):
        azure.address()
    address = azure.network.public_ip_addresses.get("rg", "ip")
    assert address.provisioning_state == "Failed"
    fault()
    with pytest.raises(HttpResponseError) as caught:
        azure.network.network_interfaces.begin_create_or_update(
            "rg",
            "nic",
            {
                "location": REGION,
                "properties": {
                    "ipConfigurations": [
                        {
                            "name": "c",
                            "properties": {"subnet": {"id": subnet.id}, "publicIPAddress": {"id": address.id}},
                        }
                    ]
                },
            },
            retry_total=0,
        )
    assert caught.value.error.code == "ReferencedResourceNotProvisioned"
    azure.nic(subnet, azure.address())


def test_extensions_need_a_running_machine_a_known_publisher_a_gpu_and_no_secure_boot(azure: Azure) -> None:
    nic = azure.network_for_vm()
    azure.vm(nic)

    def driver(publisher: str = "Microsoft.HpcCompute", version: str = "1.11") -> Any:
        body = {
            "location": REGION,
            "properties": {
                "publisher": publisher,
                "type": "NvidiaGpuDriverLinux",
                "typeHandlerVersion": version,
                "autoUpgradeMinorVersion": True,
            },
        }
        begin = azure.compute.virtual_machine_extensions.begin_create_or_update
        return begin("rg", "vm", "gpu", body).result()

    with refused("ArtifactNotFound"):
        driver("Microsoft.Elsewhere")
    with refused("ArtifactVersionNotFound"):
        driver(version="7.0")
    with refused("VMExtensionProvisioningError", "no NVIDIA GPU"):
        driver()
    azure.vm(nic, properties={"hardwareProfile": {"vmSize": "Standard_NC4as_T4_v3"}})
    assert driver().provisioning_state == "Succeeded"
    secure = {"securityType": "TrustedLaunch", "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True}}
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    size = {"hardwareProfile": {"vmSize": "Standard_NC4as_T4_v3"}, "securityProfile": secure}
    azure.vm(nic, properties=size)
    with refused("VMExtensionProvisioningTimeout", "Secure Boot"):
        driver()
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    with refused("OperationNotAllowed", "not running"):
        driver()


def test_encryption_at_host_works_once_the_feature_is_registered(azure: Azure) -> None:
    nic = azure.network_for_vm()
    path = (
        f"/subscriptions/{azure.subscription}/providers/Microsoft.Features/providers/Microsoft.Compute/features"
        "/EncryptionAtHost/register?api-version=2021-07-01"
    )
    assert azure.resources.send_request(HttpRequest("POST", path)).json()["properties"]["state"] == "Registered"
    azure.vm(nic, properties={"securityProfile": {"encryptionAtHost": True}})
