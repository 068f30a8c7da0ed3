"""Network interfaces: their place in a subnet, their private address, their public one."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError, network_format
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, envelope
from deployer.sandbox.azure.net_addresses import ADDRESSES, INTERFACES, holder
from deployer.sandbox.azure.net_virtual import prefixes
from deployer.sandbox.azure.state import Body, Cloud, Record


class Interfaces(ResourceKind):
    type = INTERFACES
    space, model = "network", "NetworkInterface"
    aliases = ("azure-native:network:NetworkInterface",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        configs = properties.get("ipConfigurations") or []
        if not configs:
            raise ArmError(
                400,
                "NetworkInterfaceMustHaveIpConfigurationOrAttachedElasticNetworkInterface",
                f"Network interface {resource} must have at least one IP configuration.",
            )
        location = body["location"]
        if group := properties.get("networkSecurityGroup"):
            kind = "Microsoft.Network/networkSecurityGroups"
            found = cloud.reference(resource, group, "properties.networkSecurityGroup.id", kind, location)
            properties["networkSecurityGroup"] = {"id": str(found.id)}
        self._check_attached(cloud, resource, body, old)
        taken: set[str] = set()
        fixed = []
        for index, config in enumerate(configs):
            fixed.append(self._config(cloud, resource, config, index, location, old, taken))
        self._check_set(resource, fixed)
        properties["ipConfigurations"] = fixed
        record = old or Record(resource, body)
        record.body = body
        record.inner.setdefault("mac", "00-0D-3A-" + "-".join(f"{b:02X}" for b in uuid.uuid4().bytes[:3]))
        cloud.records[resource.key] = record
        return record

    def _check_attached(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> None:
        owner = cloud.find(old.inner.get("vm")) if old else None
        if owner is not None and body["properties"].get("enableAcceleratedNetworking"):
            size = catalogue.sizes()[owner.properties["hardwareProfile"]["vmSize"].lower()]
            if not size.accelerated:
                raise not_accelerated(size.name, str(resource))

    def _check_set(self, resource: ResourceId, configs: list[Body]) -> None:
        names = [config["name"].lower() for config in configs]
        if len(set(names)) < len(names):
            raise ArmError(
                400,
                "DuplicateResourceName",
                f"Resource {resource} has two child resources with the same name ({configs[-1]['name']}).",
            )
        primary = [config for config in configs if config["properties"].get("primary")]
        if not primary and len(configs) == 1:
            configs[0]["properties"]["primary"] = True
        elif len(primary) != 1:
            raise ArmError(
                400,
                "NetworkInterfaceMustHaveOnePrimaryIpConfiguration",
                f"Network interface {resource} must have exactly one primary IP configuration.",
            )

    def _config(
        self,
        cloud: Cloud,
        resource: ResourceId,
        config: Body,
        index: int,
        location: str,
        old: Record | None,
        taken: set[str],
    ) -> Body:
        where = f"properties.ipConfigurations[{index}].properties"
        name = config.get("name")
        if not name:
            raise network_format(f"Required property 'name' not found in JSON. Path '{where}'.")
        wanted: Body = dict(config.get("properties") or {})
        if not wanted.get("subnet"):
            raise ArmError(
                400,
                "SubnetIsRequired",
                f"IP configuration {resource}/ipConfigurations/{name} does not reference a subnet.",
            )
        subnet = cloud.reference(
            resource, wanted["subnet"], f"{where}.subnet.id", "Microsoft.Network/virtualNetworks/subnets", location
        )
        wanted["subnet"] = {"id": str(subnet.id)}
        if public := wanted.get("publicIPAddress"):
            address = cloud.reference(resource, public, f"{where}.publicIPAddress.id", ADDRESSES, location)
            used = holder(cloud, address)
            if used and used[0].id.key != resource.key:
                raise ArmError(
                    400,
                    "PublicIPAddressInUse",
                    f"Resource {resource}/ipConfigurations/{name} is referencing public IP address {address.id} that is"
                    f" already allocated to resource {used[1]}.",
                )
            wanted["publicIPAddress"] = {"id": str(address.id)}
        wanted.setdefault("privateIPAllocationMethod", "Dynamic")
        wanted.setdefault("privateIPAddressVersion", "IPv4")
        before = _named(old, name)
        current = None
        if before is not None and before["properties"]["subnet"]["id"].lower() == subnet.id.key:
            current = before["properties"]["privateIPAddress"]
        wanted["privateIPAddress"] = self._private(cloud, resource, name, wanted, subnet, current, taken)
        taken.add(wanted["privateIPAddress"])
        return {"name": name, "properties": wanted}

    def _private(
        self,
        cloud: Cloud,
        resource: ResourceId,
        name: str,
        wanted: Body,
        subnet: Record,
        current: str | None,
        taken: set[str],
    ) -> str:
        """The private address: the one asked for, the one it had, or the lowest free one (Azure keeps five back)."""
        net = prefixes(subnet.properties, subnet.id)[0]
        used = {
            config["properties"]["privateIPAddress"]: f"{nic.id}/ipConfigurations/{config['name']}"
            for nic in cloud.of_type(INTERFACES)
            for config in nic.properties.get("ipConfigurations", [])
            if nic.id.key != resource.key and config["properties"]["subnet"]["id"].lower() == subnet.id.key
        }
        asked = wanted.get("privateIPAddress") if wanted["privateIPAllocationMethod"] == "Static" else None
        if wanted["privateIPAllocationMethod"] == "Static" and not asked:
            raise ArmError(
                400,
                "PrivateIPAddressMissing",
                f"IP configuration {resource}/ipConfigurations/{name} has the allocation method Static but no address.",
            )
        if asked:
            return self._asked(asked, net, used, taken, resource, name)
        if current:
            return current
        for number in range(4, net.num_addresses - 1):
            free = str(net[number])
            if free not in used and free not in taken:
                return free
        raise ArmError(
            400,
            "SubnetIsFull",
            f"Subnet {subnet.id.name} with address prefix {net} does not have enough capacity for 1 IP addresses.",
        )

    def _asked(
        self, asked: str, net: Any, used: dict[str, str], taken: set[str], resource: ResourceId, name: str
    ) -> str:
        try:
            address = ipaddress.ip_address(asked)
        except ValueError:
            raise ArmError(
                400,
                "InvalidIPAddressFormat",
                f"The IP address {asked} of resource {resource} is not formatted correctly.",
            ) from None
        if address not in net:
            raise ArmError(
                400,
                "PrivateIPAddressNotInSubnet",
                f"Private static IP address {asked} does not belong to the range of subnet prefix {net}.",
            )
        if int(address) - int(net[0]) < 4 or address == net[-1]:
            raise ArmError(
                400,
                "PrivateIPAddressInReservedRange",
                f"Private static IP address {asked} falls within reserved IP range of subnet prefix {net}.",
            )
        if asked in used or asked in taken:
            raise ArmError(
                400,
                "PrivateIPAddressIsAllocated",
                f"IP configuration {resource}/ipConfigurations/{name} is using the private IP address {asked} which is"
                f" already allocated to resource {used.get(asked, resource)}.",
            )
        return asked

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        if owner := cloud.find(record.inner.get("vm")):
            raise nic_in_use(record, owner)

    def show(self, cloud: Cloud, record: Record) -> Body:
        configs = [
            {
                "name": config["name"],
                "id": f"{record.id}/ipConfigurations/{config['name']}",
                "etag": f'W/"{record.etag}"',
                "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
                "properties": {"provisioningState": record.state, **config["properties"]},
            }
            for config in record.properties["ipConfigurations"]
        ]
        properties: Body = {
            "resourceGuid": record.guid,
            "enableAcceleratedNetworking": False,
            "enableIPForwarding": False,
            "disableTcpStateTracking": False,
            "vnetEncryptionSupported": False,
            "nicType": "Standard",
            "auxiliaryMode": "None",
            "auxiliarySku": "None",
            "dnsSettings": {"dnsServers": []},
            "hostedWorkloads": [],
            "tapConfigurations": [],
            **record.properties,
            "ipConfigurations": configs,
        }
        if owner := cloud.find(record.inner.get("vm")):
            properties["virtualMachine"] = {"id": str(owner.id)}
            properties["primary"] = record.inner.get("primary", True)
            properties["macAddress"] = record.inner["mac"]
        return envelope(record, properties)


def _named(record: Record | None, name: str) -> Body | None:
    configs: list[Body] = record.properties["ipConfigurations"] if record else []
    return next((config for config in configs if config["name"].lower() == name.lower()), None)


def nic_in_use(nic: Record, owner: Record) -> ArmError:
    return ArmError(
        400,
        "NicInUse",
        f"Network Interface {nic.id} is used by existing resource {owner.id}. In order to delete the network interface,"
        " it must be dissociated from the resource. To learn more, see aka.ms/deletenic.",
    )


def not_accelerated(size: str, nic: str) -> ArmError:
    return ArmError(
        400,
        "VMSizeIsNotPermittedToEnableAcceleratedNetworking",
        f"VM size {size} is not permitted to enable AcceleratedNetworking on Network Interface(s) {nic}. Please either"
        " disable accelerated networking or use one of the VM sizes that support it.",
    )
