"""Network security groups and their rules."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from deployer.sandbox.azure.arm_errors import ArmError
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, envelope
from deployer.sandbox.azure.state import Body, Cloud, Record

_SERVICE_TAG = re.compile(r"[A-Za-z][A-Za-z0-9]*(\.[A-Za-z0-9]+)?\Z")
# These tags, "*" among them, may stand alone only, never in a list.
_ALONE = {"*", "internet", "virtualnetwork", "azureloadbalancer"}
RULES_FOR_ONE_GROUP = 1000

# name, priority, direction, access, source, destination: what every group ends with
_DEFAULTS = (
    ("AllowVnetInBound", 65000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65500, "Inbound", "Deny", "*", "*"),
    ("AllowVnetOutBound", 65000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65001, "Outbound", "Allow", "*", "Internet"),
    ("DenyAllOutBound", 65500, "Outbound", "Deny", "*", "*"),
)


def _check_port(text: Any) -> None:
    if text == "*":
        return
    ends = str(text).split("-")
    if len(ends) > 2 or not all(end.isascii() and end.isdigit() and int(end) <= 65535 for end in ends):
        bad = True
    else:
        bad = len(ends) == 2 and int(ends[0]) > int(ends[1])
    if bad:
        raise ArmError(
            400,
            "SecurityRuleInvalidPortRange",
            f"Security rule has invalid Port range. Value provided: {text}. Value should be an integer OR integer range"
            " with '-' delimiter. Valid range 0-65535.",
        )


def _check_address(text: Any, rule: ResourceId, parameter: str, *, alone: bool) -> None:
    if not alone and str(text).lower() in _ALONE:
        raise ArmError(
            400,
            "SecurityRuleParameterContainsUnsupportedValue",
            f"Security rule parameter {parameter} for rule with Id {rule} cannot specify existing VIRTUALNETWORK,"
            f" INTERNET, AZURELOADBALANCER, '*' or system tags. Unsupported value used: {text}.",
        )
    if text == "*" or _SERVICE_TAG.match(str(text)):
        return
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ArmError(
            400,
            "SecurityRuleInvalidAddressPrefix",
            f"Security rule has invalid Address prefix. Value provided: {text}",
        ) from None


def check_rule(rule: ResourceId, properties: Body) -> None:
    """Everything about a rule that can be said without its neighbours."""
    missing = [name for name in ("protocol", "access", "direction", "priority") if properties.get(name) is None]
    if missing:
        raise ArmError(
            400,
            "SecurityRuleParameterMissing",
            f"Required security rule parameters are missing for security rule with Id: {rule}. Security rule must"
            f" specify {', '.join(missing)}.",
        )
    priority = properties["priority"]
    if not 100 <= priority <= 4096:
        raise ArmError(
            400,
            "SecurityRuleInvalidPriority",
            f"Security rule has invalid Priority. Value provided: {priority} Allowed range 100-4096. To learn more, see"
            " aka.ms/nsgrules.",
        )
    if len(properties.get("description") or "") > 140:
        raise ArmError(
            400,
            "SecurityRuleDescriptionTooLong",
            f"The description of security rule {rule} exceeds the maximum length of 140 characters.",
        )
    for side in ("source", "destination"):
        one, many = properties.get(f"{side}PortRange"), properties.get(f"{side}PortRanges") or []
        _only_one(rule, f"{side}PortRange", one, many)
        for text in many or [one]:
            _check_port(text)
        one, many = properties.get(f"{side}AddressPrefix"), properties.get(f"{side}AddressPrefixes") or []
        if not properties.get(f"{side}ApplicationSecurityGroups"):
            _only_one(rule, f"{side}AddressPrefix", one, many)
            for text in many or [one]:
                parameter = f"{side[0].upper()}{side[1:]}AddressPrefix"
                _check_address(text, rule, parameter, alone=not many or len(many) == 1)


def _only_one(rule: ResourceId, name: str, one: Any, many: list[Any]) -> None:
    plural = f"{name}es" if name.endswith("Prefix") else f"{name}s"
    if one in (None, "") and not many:
        raise ArmError(
            400,
            "SecurityRuleParameterMissing",
            f"Required security rule parameters are missing for security rule with Id: {rule}. Security rule must"
            f" specify {name} or {plural}.",
        )
    if one not in (None, "") and many:
        raise ArmError(
            400,
            "SecurityRuleParameterConflict",
            f"Security rule with Id {rule} cannot specify both {name} and {plural}.",
        )


def check_conflicts(rules: list[tuple[str, Body]]) -> None:
    """No two rules of a group share priority and direction."""
    seen: dict[tuple[str, int], str] = {}
    for name, properties in rules:
        place = (properties["direction"].lower(), properties["priority"])
        if place in seen:
            raise ArmError(
                400,
                "SecurityRuleConflict",
                f"Security rule {name} conflicts with rule {seen[place]}. Rules cannot have the same Priority and"
                " Direction. To learn more, see aka.ms/nsgrules.",
            )
        seen[place] = name


def users(cloud: Cloud, group: Record) -> tuple[list[Record], list[Record]]:
    """The interfaces and the subnets that a group guards."""

    def guarded(type_: str) -> list[Record]:
        return [
            record
            for record in cloud.of_type(type_)
            if record.properties.get("networkSecurityGroup", {}).get("id", "").lower() == group.id.key
        ]

    return guarded("Microsoft.Network/networkInterfaces"), guarded("Microsoft.Network/virtualNetworks/subnets")


class SecurityGroups(ResourceKind):
    type = "Microsoft.Network/networkSecurityGroups"
    space, model = "network", "NetworkSecurityGroup"
    aliases = ("azure-native:network:NetworkSecurityGroup",)

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        properties.pop("defaultSecurityRules", None)
        wanted = properties.pop("securityRules", [])  # a group without the property is a group without rules
        rules: dict[str, Body] = {}
        for item in wanted:
            name = str(item.get("name") or "")
            child = resource.child("securityRules", name)
            RULE.check_name(child)
            if name.lower() in (seen.lower() for seen in rules):
                raise ArmError(
                    400,
                    "DuplicateResourceName",
                    f"Resource {resource} has two child resources with the same name ({name}).",
                )
            rules[name] = {"properties": dict(item.get("properties") or {})}
            check_rule(child, rules[name]["properties"])
        _check_count(resource, len(rules))
        check_conflicts([(name, inner["properties"]) for name, inner in rules.items()])
        record = old or Record(resource, body)
        record.body = body
        cloud.records[resource.key] = record
        existing = {rule.id.key: rule for rule in cloud.children(resource, "securityRules")}
        for key in existing:
            cloud.records.pop(key)
        for name, inner in rules.items():
            child = resource.child("securityRules", name)
            kept = existing.get(child.key) or Record(child, inner)
            kept.body, kept.state = inner, "Succeeded"
            cloud.records[child.key] = kept
        return record

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        nics, subnets = users(cloud, record)
        if used := [str(user.id) for user in (*nics, *subnets)]:
            raise ArmError(
                400,
                "InUseNetworkSecurityGroupCannotBeDeleted",
                f"Network security group {record.id} cannot be deleted because it is in use by the following resources:"
                f" {', '.join(used)}. In order to delete the Network security group, remove the association with the"
                " resource(s). To learn how to do this, see aka.ms/deletensg.",
            )

    def remove(self, cloud: Cloud, record: Record) -> None:
        for rule in cloud.children(record.id, "securityRules"):
            cloud.records.pop(rule.id.key)
        super().remove(cloud, record)

    def show(self, cloud: Cloud, record: Record) -> Body:
        nics, subnets = users(cloud, record)
        properties: Body = {
            "resourceGuid": record.guid,
            **record.properties,
            "securityRules": [RULE.show(cloud, rule) for rule in cloud.children(record.id, "securityRules")],
            "defaultSecurityRules": [_default(record, *row) for row in _DEFAULTS],
        }
        if nics:
            properties["networkInterfaces"] = [{"id": str(nic.id)} for nic in nics]
        if subnets:
            properties["subnets"] = [{"id": str(subnet.id)} for subnet in subnets]
        return envelope(record, properties)


def _check_count(resource: ResourceId, count: int) -> None:
    if count > RULES_FOR_ONE_GROUP:
        raise ArmError(
            400,
            "MaximumSecurityRulesPerNsgExceeded",
            f"Cannot create more than {RULES_FOR_ONE_GROUP} security rules for network security group {resource}.",
        )


def _default(
    record: Record, name: str, priority: int, direction: str, access: str, source: str, destination: str
) -> Body:
    return {
        "name": name,
        "id": f"{record.id}/defaultSecurityRules/{name}",
        "etag": f'W/"{record.etag}"',
        "type": "Microsoft.Network/networkSecurityGroups/defaultSecurityRules",
        "properties": {
            "provisioningState": "Succeeded",
            "protocol": "*",
            "sourcePortRange": "*",
            "destinationPortRange": "*",
            "sourceAddressPrefix": source,
            "destinationAddressPrefix": destination,
            "access": access,
            "priority": priority,
            "direction": direction,
        },
    }


class SecurityRules(ResourceKind):
    type = "Microsoft.Network/networkSecurityGroups/securityRules"
    space, model = "network", "SecurityRule"
    tracked = False
    aliases = ("azure-native:network:SecurityRule", "rules")

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        properties = body.setdefault("properties", {})
        check_rule(resource, properties)
        assert resource.parent is not None
        others = [rule for rule in cloud.children(resource.parent, "securityRules") if rule.id.key != resource.key]
        _check_count(resource.parent, len(others) + 1)
        check_conflicts([*((rule.id.name, rule.properties) for rule in others), (resource.name, properties)])
        record = old or Record(resource, body)
        record.body = body
        cloud.records[resource.key] = record
        return record

    def show(self, cloud: Cloud, record: Record) -> Body:
        lists: Body = {
            f"{side}{name}": [] for side in ("source", "destination") for name in ("PortRanges", "AddressPrefixes")
        }
        return envelope(record, {**lists, **record.properties})


RULE = SecurityRules()
