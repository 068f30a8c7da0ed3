"""Public addresses and network interfaces."""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import Any

from deployer.sandbox.addresses import AddressPoolExhausted
from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError, network_format
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, check_zones, envelope
from deployer.sandbox.azure.net_virtual import prefixes
from deployer.sandbox.azure.state import Body, Cloud, Record

ADDRESSES = "Microsoft.Network/publicIPAddresses"
INTERFACES = "Microsoft.Network/networkInterfaces"
_LABEL = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]\Z")
ADDRESS_QUOTA = 1000  # for each region of a subscription; `Cloud.quotas` overrides it


def holder(cloud: Cloud, address: Record) -> tuple[Record, str] | None:
    """The interface that bears a public address, and the ID of its configuration."""
    for nic in cloud.of_type(INTERFACES):
        for config in nic.properties.get("ipConfigurations", []):
            used = config["properties"].get("publicIPAddress", {}).get("id", "")
            if used.lower() == address.id.key:
                return nic, f"{nic.id}/ipConfigurations/{config['name']}"
    return None


class PublicAddresses(ResourceKind):
    type = ADDRESSES
    space, model = "network", "PublicIPAddress"
    aliases = ("azure-native:network:PublicIPAddress",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        for name in ("ipAddress", "ipConfiguration"):
            properties.pop(name, None)
        check_zones(resource, body, old)
        self._check_sku(resource, body, old)
        self._check_name(cloud, resource, body)
        if old is None:
            place = body["location"]
            limit = cloud.quotas.get((resource.subscription, place, "PublicIPAddresses"), ADDRESS_QUOTA)
            used = [r for r in cloud.of_type(ADDRESSES) if r.id.subscription == resource.subscription]
            if sum(r.location == place for r in used) >= limit:
                raise ArmError(
                    400,
                    "PublicIPCountLimitReached",
                    f"Cannot create more than {limit} public IP addresses for this subscription in this region.",
                )
        properties.setdefault("idleTimeoutInMinutes", 4)
        properties.setdefault("publicIPAddressVersion", "IPv4")
        if not 4 <= properties["idleTimeoutInMinutes"] <= 30:
            raise ArmError(
                400,
                "PublicIPAddressIdleTimeoutIsOutOfRange",
                f"Idle timeout for public IP address {resource} is out of range: it must be between 4 and 30 minutes.",
            )
        record = old or Record(resource, body)
        if "address" not in record.inner:
            record.inner["address"] = self._allocate(cloud, resource)
        record.body = body
        cloud.records[resource.key] = record
        return record

    def _allocate(self, cloud: Cloud, resource: ResourceId) -> str:
        try:
            return cloud.addresses.allocate(str(resource))
        except AddressPoolExhausted as error:
            raise ArmError(
                400,
                "PublicIPCountLimitReached",
                f"Cannot create more public IP addresses: the sandbox has no loopback address left ({error}).",
            ) from None

    def _check_sku(self, resource: ResourceId, body: Body, old: Record | None) -> None:
        sku = body.setdefault("sku", {})
        # A request without a SKU means Basic to ARM, and Basic addresses cannot be made any more.
        sku.setdefault("name", old.body["sku"]["name"] if old else "Basic")
        sku.setdefault("tier", "Regional")
        properties = body["properties"]
        properties.setdefault("publicIPAllocationMethod", "Dynamic")
        if old is not None and old.body["sku"] != sku:
            raise ArmError(
                400,
                "SkuPropertyCannotBeChanged",
                f"Sku property is set at creation time and cannot be changed from {old.body['sku']['name']} to"
                f" {sku['name']} on resource update for resource {resource}.",
            )
        if sku["name"] == "Basic":
            raise ArmError(
                400,
                "IPv4BasicSkuPublicIpCountLimitReached",
                "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription in this region.",
            )
        if properties["publicIPAllocationMethod"] != "Static":
            raise ArmError(
                400,
                "StandardAndStandardV2SkuPublicIPAddressesMustBeStatic",
                f"Standard sku publicIp {resource} must have AllocationMethod set to Static.",
            )
        if properties.get("publicIPAddressVersion", "IPv4") != "IPv4":
            raise ArmError(
                400, "PublicIPAddressVersionNotSupported", f"The sandbox has IPv4 addresses only: {resource}."
            )

    def _check_name(self, cloud: Cloud, resource: ResourceId, body: Body) -> None:
        settings = body["properties"].get("dnsSettings")
        label = settings.get("domainNameLabel") if settings else None
        if not settings or not label:
            return
        if not _LABEL.match(label):
            raise ArmError(
                400,
                "InvalidDomainNameLabel",
                f"The domain name label {label} is invalid. It must conform to the following regular expression:"
                " ^[a-z][a-z0-9-]{1,61}[a-z0-9]$.",
            )
        settings["fqdn"] = f"{label}.{body['location']}.cloudapp.azure.com"
        for other in cloud.of_type(ADDRESSES):
            taken = other.properties.get("dnsSettings", {}).get("fqdn")
            if other.id.key != resource.key and taken == settings["fqdn"]:
                raise ArmError(400, "DnsRecordInUse", f"DNS record {taken} is already used by another public IP.")

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        if used := holder(cloud, record):
            raise ArmError(
                400,
                "PublicIPAddressCannotBeDeleted",
                f"Public IP address {record.id} can not be deleted since it is still allocated to resource {used[1]}."
                " In order to delete the public IP, disassociate/detach the Public IP address from the resource. To"
                " learn how to do this, see aka.ms/deletepublicip.",
            )

    def remove(self, cloud: Cloud, record: Record) -> None:
        cloud.addresses.release(record.inner["address"])
        super().remove(cloud, record)

    def show(self, cloud: Cloud, record: Record) -> Body:
        properties: Body = {"resourceGuid": record.guid, "ipTags": [], **record.properties}
        properties["ipAddress"] = record.inner["address"]
        if used := holder(cloud, record):
            properties["ipConfiguration"] = {"id": used[1]}
        return envelope(record, properties)


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
                "NetworkInterfaceMustHaveIpConfiguration",
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
                "IpConfigurationMustReferenceSubnet",
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
