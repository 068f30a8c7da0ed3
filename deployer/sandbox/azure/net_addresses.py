"""Public addresses: static, of the Standard SKU, theirs for life."""

from __future__ import annotations

import re

from deployer.sandbox.addresses import AddressPoolExhausted
from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, check_zones, envelope
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
