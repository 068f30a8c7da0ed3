"""Security groups and their rules: aws.ec2.SecurityGroup, aws.vpc.SecurityGroupIngressRule and EgressRule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from deployer.sandbox.aws.resource import AwsResource, tags_of
from deployer.sandbox.provider_base import Call, ProviderError, Values
from deployer.sandbox.provider_values import Change


class SecurityGroup(AwsResource):
    token, kind, label = "aws:ec2/securityGroup:SecurityGroup", "ec2:security-group", "Security Group"
    tag_type = "security-group"
    inputs = frozenset(
        {"name", "namePrefix", "description", "vpcId", "ingress", "egress", "revokeRulesOnDelete", "region", "tags"}
    )
    defaults = {"description": "Managed by Pulumi", "revokeRulesOnDelete": False}
    replace_on = frozenset({"name", "namePrefix", "description", "vpcId"})
    sets = frozenset({"ingress", "egress"})
    autoname = "name"
    optional = frozenset({"ingress", "egress"})
    outputs = ("arn", "ownerId", "name", "vpcId", "ingress", "egress")
    not_read = frozenset({"namePrefix", "revokeRulesOnDelete"})

    def autonamed(self, news: Values) -> bool:
        return not news.get("namePrefix")

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        name = inputs.get("name") or f"{inputs['namePrefix']}{call.attempt.replace('-', '')[:26]}"
        where = {"VpcId": inputs["vpcId"]} if inputs.get("vpcId") else {}
        made = ec2.create_security_group(
            GroupName=name, Description=inputs["description"], TagSpecifications=tags, **where
        )
        return str(made["GroupId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        group = ec2.describe_security_groups(GroupIds=[resource_id])["SecurityGroups"][0]
        if created and group["IpPermissionsEgress"]:
            # EC2 gives a new group an egress rule for everything; the real provider takes it away.
            ec2.revoke_security_group_egress(GroupId=resource_id, IpPermissions=group["IpPermissionsEgress"])
            group["IpPermissionsEgress"] = []
        for name, key, add, drop in (
            ("ingress", "IpPermissions", "authorize_security_group_ingress", "revoke_security_group_ingress"),
            ("egress", "IpPermissionsEgress", "authorize_security_group_egress", "revoke_security_group_egress"),
        ):
            if name not in news:
                continue
            wanted = [permission for rule in news[name] or [] for permission in _permissions(rule, resource_id)]
            had = [
                permission for rule in _rules(group[key], resource_id) for permission in _permissions(rule, resource_id)
            ]
            if stale := [item for item in had if item not in wanted]:
                getattr(ec2, drop)(GroupId=resource_id, IpPermissions=stale)
            if fresh := [item for item in wanted if item not in had]:
                getattr(ec2, add)(GroupId=resource_id, IpPermissions=fresh)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        group = ec2.describe_security_groups(GroupIds=[resource_id])["SecurityGroups"][0]
        # Rules are told only to a group that lists them: those of rule resources are not this one's.
        return {
            "arn": self.arn(call, state, f"security-group/{resource_id}"),
            "description": group["Description"],
            "egress": _rules(group["IpPermissionsEgress"], resource_id) if state.get("egress") else [],
            "ingress": _rules(group["IpPermissions"], resource_id) if state.get("ingress") else [],
            "name": group["GroupName"],
            "ownerId": group["OwnerId"],
            "tagsAll": tags_of(group),
            "vpcId": group.get("VpcId", ""),
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if state.get("revokeRulesOnDelete"):
            group = ec2.describe_security_groups(GroupIds=[resource_id])["SecurityGroups"][0]
            if group["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=resource_id, IpPermissions=group["IpPermissions"])
            if group["IpPermissionsEgress"]:
                ec2.revoke_security_group_egress(GroupId=resource_id, IpPermissions=group["IpPermissionsEgress"])
        ec2.delete_security_group(GroupId=resource_id)


def _permissions(rule: Values, group_id: str) -> list[dict[str, Any]]:
    """One permission of the API for each source of an inline rule."""
    protocol = str(rule.get("protocol", "-1")).lower()
    protocol = "-1" if protocol == "all" else protocol
    base: dict[str, Any] = {"IpProtocol": protocol}
    if protocol != "-1":
        base |= {"FromPort": int(rule.get("fromPort", 0)), "ToPort": int(rule.get("toPort", 0))}
    text = {"Description": rule["description"]} if rule.get("description") else {}
    out = [{**base, "IpRanges": [{"CidrIp": cidr, **text}]} for cidr in rule.get("cidrBlocks") or []]
    out += [{**base, "Ipv6Ranges": [{"CidrIpv6": cidr, **text}]} for cidr in rule.get("ipv6CidrBlocks") or []]
    members = [*(rule.get("securityGroups") or []), *([group_id] if rule.get("self") else [])]
    return out + [{**base, "UserIdGroupPairs": [{"GroupId": member, **text}]} for member in members]


def _rules(permissions: list[dict[str, Any]], group_id: str) -> list[Values]:
    """The API's permissions as inline rules; ranges with one description are one rule."""
    out: list[Values] = []
    for permission in permissions:
        every = permission["IpProtocol"] == "-1"
        base: Values = {
            "protocol": permission["IpProtocol"],
            "fromPort": 0 if every else permission.get("FromPort", 0),
            "toPort": 0 if every else permission.get("ToPort", 0),
        }
        found: dict[str, Values] = {}

        def rule_for(item: Mapping[str, Any], base: Values = base, found: dict[str, Values] = found) -> Values:
            text = str(item.get("Description", ""))
            return found.setdefault(text, {**base, **({"description": text} if text else {})})

        for item in permission.get("IpRanges", []):
            rule_for(item).setdefault("cidrBlocks", []).append(item["CidrIp"])
        for item in permission.get("Ipv6Ranges", []):
            rule_for(item).setdefault("ipv6CidrBlocks", []).append(item["CidrIpv6"])
        for item in permission.get("UserIdGroupPairs", []):
            if item["GroupId"] == group_id:
                rule_for(item)["self"] = True
            else:
                rule_for(item).setdefault("securityGroups", []).append(item["GroupId"])
        out += found.values()
    return out


SOURCES = ("cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId")


class _Rule(AwsResource):
    """One rule of a group: one protocol, one port range, one source. Everything but the group changes in place."""

    kind = "ec2:security-group-rule"
    tag_type = "security-group-rule"
    egress: ClassVar[bool]
    inputs = frozenset(
        {"securityGroupId", "ipProtocol", "fromPort", "toPort", "description", "region", "tags", *SOURCES}
    )
    required = ("securityGroupId", "ipProtocol")
    replace_on = frozenset({"securityGroupId"})
    outputs = ("arn", "securityGroupRuleId")

    def check(self, call: Call, news: Values, olds: Values) -> tuple[Values, list[tuple[str, str]]]:
        filled, failures = super().check(call, news, olds)
        if sum(filled.get(name) is not None for name in SOURCES) != 1:
            failures.append(("cidrIpv4", f"exactly one of {', '.join(SOURCES)} must be given"))
        return filled, failures

    def replaces(self, change: Change, old_inputs: Values, news: Values) -> bool:
        # From one kind of source to another there is no modification (EC2 API, ModifySecurityGroupRules).
        other_kind = change.path in SOURCES and (change.old is None or change.new is None)
        return other_kind or super().replaces(change, old_inputs, news)

    @staticmethod
    def _ports(values: Values) -> dict[str, int]:
        if str(values["ipProtocol"]).lower() in ("-1", "all"):
            return {}
        return {
            parameter: int(values[name])
            for name, parameter in (("fromPort", "FromPort"), ("toPort", "ToPort"))
            if values.get(name) is not None
        }

    @staticmethod
    def _protocol(values: Values) -> str:
        protocol = str(values["ipProtocol"]).lower()
        return {"all": "-1", "6": "tcp", "17": "udp", "1": "icmp"}.get(protocol, protocol)

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        text = {"Description": inputs["description"]} if inputs.get("description") else {}
        source: dict[str, Any] = {}
        if inputs.get("cidrIpv4"):
            source = {"IpRanges": [{"CidrIp": inputs["cidrIpv4"], **text}]}
        elif inputs.get("cidrIpv6"):
            source = {"Ipv6Ranges": [{"CidrIpv6": inputs["cidrIpv6"], **text}]}
        elif inputs.get("prefixListId"):
            source = {"PrefixListIds": [{"PrefixListId": inputs["prefixListId"], **text}]}
        elif inputs.get("referencedSecurityGroupId"):
            source = {"UserIdGroupPairs": [{"GroupId": inputs["referencedSecurityGroupId"], **text}]}
        authorize = ec2.authorize_security_group_egress if self.egress else ec2.authorize_security_group_ingress
        answer = authorize(
            GroupId=inputs["securityGroupId"],
            IpPermissions=[{"IpProtocol": self._protocol(inputs), **self._ports(inputs), **source}],
            TagSpecifications=tags,
        )
        if not answer.get("SecurityGroupRules"):
            raise ProviderError(f"creating {self.label}: the API named no rule")
        return str(answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        same = all(
            (news.get(name) or None) == (live.get(name) or None)
            for name in ("description", *SOURCES, *(("fromPort", "toPort") if self._ports(news) else ()))
        )
        if created or (same and self._protocol(news) == live["ipProtocol"]):
            return
        rule: dict[str, Any] = {"IpProtocol": self._protocol(news), "Description": news.get("description") or ""}
        rule |= self._ports(news)
        for name, parameter in zip(SOURCES, ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupId"), strict=True):
            if news.get(name):
                rule[parameter] = news[name]
        ec2.modify_security_group_rules(
            GroupId=news["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": resource_id, "SecurityGroupRule": rule}],
        )

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        found = ec2.describe_security_group_rules(
            Filters=[{"Name": "security-group-rule-id", "Values": [resource_id]}]
        )["SecurityGroupRules"]
        if not found or found[0]["IsEgress"] != self.egress:
            return None
        rule = found[0]
        every = rule["IpProtocol"] == "-1"
        reference = rule.get("ReferencedGroupInfo") or {}
        out: Values = {
            "arn": self.arn(call, state, f"security-group-rule/{resource_id}"),
            "cidrIpv4": rule.get("CidrIpv4"),
            "cidrIpv6": rule.get("CidrIpv6"),
            "description": rule.get("Description") or None,
            "fromPort": None if every else rule.get("FromPort"),
            "ipProtocol": rule["IpProtocol"],
            "prefixListId": rule.get("PrefixListId"),
            "referencedSecurityGroupId": reference.get("GroupId"),
            "securityGroupId": rule["GroupId"],
            "securityGroupRuleId": resource_id,
            "tagsAll": tags_of(rule),
            "toPort": None if every else rule.get("ToPort"),
        }
        if every:  # a program may give ports with "all protocols"; the API forgets them
            out |= {name: state[name] for name in ("fromPort", "toPort") if state.get(name) is not None}
        if state.get("ipProtocol") and self._protocol(state) == out["ipProtocol"]:
            out["ipProtocol"] = state["ipProtocol"]
        return out

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        revoke = ec2.revoke_security_group_egress if self.egress else ec2.revoke_security_group_ingress
        if self.describe(call, ec2, resource_id, state) is not None:
            revoke(GroupId=state["securityGroupId"], SecurityGroupRuleIds=[resource_id])


class SecurityGroupIngressRule(_Rule):
    token, label = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "VPC Security Group Ingress Rule"
    egress = False


class SecurityGroupEgressRule(_Rule):
    token, label = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", "VPC Security Group Egress Rule"
    egress = True
